/* Max pooling for training on CPUs, forward and backward. */

#include <math.h>
#include <stdlib.h>

#include "vectors.h"

#define LARGEST_KERNEL 16
#define MOST_WINDOWS (LARGEST_KERNEL * LARGEST_KERNEL)

/* Images N x height x width x C into N x out_height x out_width x C, square windows; what a window has
   outside the image does not count. */
typedef struct {
    int64_t images, height, width, channels, out_height, out_width;
    int64_t kernel, step, top, left; /* rows and columns of padding before the image */
} Pooling;

INLINE int64_t at_least(int64_t a, int64_t b) { return a > b ? a : b; }
INLINE int64_t at_most(int64_t a, int64_t b) { return a < b ? a : b; }

/* Where `value` is larger than `best`, or not a number: it and its place instead. */
INLINE void take_larger(floats value, int32_t own, floats* best, ints* place) {
#ifdef __AVX512F__
    __m512 v = (__m512)value;
    __mmask16 larger =
        _mm512_cmp_ps_mask(v, (__m512)*best, _CMP_GT_OQ) | _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
    *best = (floats)_mm512_mask_mov_ps((__m512)*best, larger, v);
    *place = (ints)_mm512_mask_mov_epi32((__m512i)*place, larger, _mm512_set1_epi32(own));
#else
    ints larger = (value > *best) | (value != value);
    *best = choose(larger, value, *best);
    *place = (larger & own) | (~larger & *place);
#endif
}

/* The largest value of each window, and its place in the window; of equal ones the first, a NaN before all.
 */
INLINE void pool_line(const void* x, int64_t stride, Pooling p, int64_t line, void* y, uint8_t* places) {
    int64_t image = line / p.out_height, top = (line % p.out_height) * p.step - p.top;
    int64_t first_i = at_least(0, -top), last_i = at_most(p.kernel, p.height - top);
    for (int64_t out = 0; out < p.out_width; out++) {
        int64_t left = out * p.step - p.left;
        int64_t first_j = at_least(0, -left), last_j = at_most(p.kernel, p.width - left);
        int64_t corner = (image * p.height + top) * p.width + left,
                target = (line * p.out_width + out) * p.channels;
#define STEP(column, lanes)                                                                         \
    do {                                                                                            \
        floats best = (floats){0} - INFINITY;                                                       \
        ints place = (ints){0} + (int32_t)(first_i * p.kernel + first_j);                           \
        for (int64_t i = first_i; i < last_i; i++) {                                                \
            int64_t at = (corner + i * p.width + first_j) * stride + column;                        \
            for (int64_t j = first_j; j < last_j; j++, at += stride)                                \
                take_larger(load_floats(x, at, lanes), (int32_t)(i * p.kernel + j), &best, &place); \
        }                                                                                           \
        store(y, target + column, lanes, 0, best);                                                  \
        bytes packed = __builtin_convertvector(place, bytes);                                       \
        memcpy(places + target + column, &packed, lanes);                                           \
    } while (0)
        FOR_COLUMNS(p.channels, LANES, STEP);
#undef STEP
    }
}

/* Rows of bfloat16 numbers as whole numbers in the same order, so that windows compare 32 of them at once. */
#define WIDE 32
#define BAND 8 /* lines that are made by one thread, one after the other */
typedef int16_t shorts __attribute__((vector_size(2 * WIDE)));
typedef uint8_t wide_bytes __attribute__((vector_size(WIDE)));

INLINE shorts choose_shorts(shorts mask, shorts yes, shorts no) { return (mask & yes) | (~mask & no); }

/* -0 becomes 0, and a NaN the largest of all. */
INLINE shorts ordered(shorts x) {
    shorts size = x & 0x7FFF, key = x ^ ((x >> 15) & 0x7FFF);
    return choose_shorts(size > 0x7F80, size, key & (size != 0));
}

INLINE shorts in_bfloat16(shorts key) { return key ^ ((key >> 15) & 0x7FFF); }

INLINE shorts load_shorts(const int16_t* data, int count) {
    shorts part = {0};
    memcpy(&part, data, 2 * count);
    return part;
}

INLINE void take_larger_key(shorts key, int16_t own, shorts* best, shorts* place) {
#ifdef __AVX512BW__
    __mmask32 larger = _mm512_cmpgt_epi16_mask((__m512i)key, (__m512i)*best);
    *best = (shorts)_mm512_max_epi16((__m512i)key, (__m512i)*best);
    *place = (shorts)_mm512_mask_mov_epi16((__m512i)*place, larger, _mm512_set1_epi16(own));
#else
    shorts larger = key > *best;
    *best = choose_shorts(larger, key, *best);
    *place = choose_shorts(larger, (shorts){0} + own, *place);
#endif
}

INLINE void ordered_line(const int16_t* x, int64_t stride, int64_t width, int64_t channels, int16_t* keys) {
    for (int64_t at = 0; at < width; at++) {
#define STEP(column, lanes)                                                 \
    do {                                                                    \
        shorts key = ordered(load_shorts(x + at * stride + column, lanes)); \
        memcpy(keys + at * channels + column, &key, 2 * lanes);             \
    } while (0)
        FOR_COLUMNS(channels, WIDE, STEP);
#undef STEP
    }
}

/* What `pool_line` does, for the lines first to last - 1 of an image. `keys` holds a line for each row of a
   window; an image line is in the place of its number modulo the kernel. */
INLINE void pool_band(const int16_t* x, int64_t stride, Pooling p, int64_t image, int64_t first, int64_t last,
                      int16_t* y, uint8_t* places, int16_t* keys) {
    int64_t length = p.width * p.channels, made = 0;
    for (int64_t line = first; line < last; line++) {
        int64_t top = line * p.step - p.top;
        int64_t first_i = at_least(0, -top), last_i = at_most(p.kernel, p.height - top);
        for (int64_t row = at_least(made, top + first_i); row < top + last_i; row++)
            ordered_line(x + (image * p.height + row) * p.width * stride, stride, p.width, p.channels,
                         keys + row % p.kernel * length);
        made = top + last_i;
        for (int64_t out = 0; out < p.out_width; out++) {
            int64_t left = out * p.step - p.left;
            int64_t first_j = at_least(0, -left), last_j = at_most(p.kernel, p.width - left);
            int64_t target = ((image * p.out_height + line) * p.out_width + out) * p.channels;
#define STEP(column, lanes)                                                                          \
    do {                                                                                             \
        shorts best = (shorts){0} + INT16_MIN;                                                       \
        shorts place = (shorts){0} + (int16_t)(first_i * p.kernel + first_j);                        \
        for (int64_t i = first_i; i < last_i; i++) {                                                 \
            const int16_t* at =                                                                      \
                keys + (top + i) % p.kernel * length + (left + first_j) * p.channels + column;       \
            for (int64_t j = first_j; j < last_j; j++, at += p.channels)                             \
                take_larger_key(load_shorts(at, lanes), (int16_t)(i * p.kernel + j), &best, &place); \
        }                                                                                            \
        best = in_bfloat16(best);                                                                    \
        memcpy(y + target + column, &best, 2 * lanes);                                               \
        wide_bytes packed = __builtin_convertvector(place, wide_bytes);                              \
        memcpy(places + target + column, &packed, lanes);                                            \
    } while (0)
            FOR_COLUMNS(p.channels, WIDE, STEP);
#undef STEP
        }
    }
}

static int pool_bands(const int16_t* x, int64_t stride, Pooling p, int16_t* y, uint8_t* places, int threads) {
    int64_t bands = (p.out_height + BAND - 1) / BAND;
    int failed = 0;
#pragma omp parallel for num_threads(threads) schedule(static) reduction(| : failed)
    for (int64_t part = 0; part < p.images * bands; part++) {
        int64_t first = part % bands * BAND;
        int16_t* keys = malloc(sizeof(int16_t) * p.kernel * p.width * p.channels);
        if (keys)
            pool_band(x, stride, p, part / bands, first, at_most(first + BAND, p.out_height), y, places,
                      keys);
        failed |= !keys;
        free(keys);
    }
    return failed;
}

/* places: for each element of y where in its window (row by row) it came from. kernel: at most
   LARGEST_KERNEL. Returns 0, or 1 when memory is short. */
int max_pool_forward(const void* x, int64_t stride, const int64_t* sizes, int bfloat16, void* y,
                     uint8_t* places, int threads) {
    Pooling p;
    memcpy(&p, sizes, sizeof p);
    if (bfloat16) return pool_bands(x, stride, p, y, places, threads);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t line = 0; line < p.images * p.out_height; line++) pool_line(x, stride, p, line, y, places);
    return 0;
}

/* One window over a position: where its gradients and places begin, and which place is the position's. */
typedef struct {
    int64_t gradient, place;
    uint8_t own;
} Window;

/* sum + values, in the lanes whose place is `own`. */
INLINE floats plus_where(bytes places, uint8_t own, floats values, floats sum) {
#if defined(__AVX512BW__) && defined(__AVX512VL__)
    __mmask16 taken = _mm_cmpeq_epi8_mask((__m128i)places, _mm_set1_epi8((char)own));
    return (floats)_mm512_mask_add_ps((__m512)sum, taken, (__m512)sum, (__m512)values);
#else
    return sum + choose(__builtin_convertvector(places, ints) == own, values, (floats){0});
#endif
}

INLINE void gather(const void* gradient, const uint8_t* places, const Window* windows, int count,
                   int64_t channels, int bfloat16, void* result, int64_t target) {
#define STEP(column, lanes)                                                           \
    do {                                                                              \
        floats sum = {0};                                                             \
        for (int w = 0; w < count; w++) {                                             \
            bytes packed = {0};                                                       \
            memcpy(&packed, places + windows[w].place + column, lanes);               \
            floats g = load(gradient, windows[w].gradient + column, lanes, bfloat16); \
            sum = plus_where(packed, windows[w].own, g, sum);                         \
        }                                                                             \
        store(result, target + column, lanes, bfloat16, sum);                         \
    } while (0)
    FOR_COLUMNS(channels, LANES, STEP);
#undef STEP
}

/* Every position of a line of the image gathers from the windows over it, in their order. */
INLINE void gather_line(const void* gradient, int64_t stride, const uint8_t* places, Pooling p, int64_t line,
                        int bfloat16, void* result) {
    int64_t image = line / p.height, row = line % p.height + p.top;
    int64_t first_i = at_least(0, row - p.kernel + p.step) / p.step,
            last_i = at_most(p.out_height - 1, row / p.step);
    int64_t first_j = 0, last_j = -1;
    for (int64_t x = 0; x < p.width; x++) {
        int64_t place = x + p.left, target = (line * p.width + x) * p.channels;
        while (first_j * p.step + p.kernel <= place) first_j++;
        while (last_j + 1 < p.out_width && (last_j + 1) * p.step <= place) last_j++;
        Window windows[MOST_WINDOWS];
        int count = 0;
        for (int64_t i = first_i; i <= last_i; i++)
            for (int64_t j = first_j; j <= last_j; j++) {
                int64_t at = (image * p.out_height + i) * p.out_width + j;
                windows[count++] = (Window){at * stride, at * p.channels,
                                            (uint8_t)((row - i * p.step) * p.kernel + place - j * p.step)};
            }
        switch (count) { /* the usual numbers with the loop unrolled */
            case 1:
                gather(gradient, places, windows, 1, p.channels, bfloat16, result, target);
                break;
            case 2:
                gather(gradient, places, windows, 2, p.channels, bfloat16, result, target);
                break;
            case 4:
                gather(gradient, places, windows, 4, p.channels, bfloat16, result, target);
                break;
            case 9:
                gather(gradient, places, windows, 9, p.channels, bfloat16, result, target);
                break;
            default:
                gather(gradient, places, windows, count, p.channels, bfloat16, result, target);
        }
    }
}

/* The gradient of x, from that of y (`stride` elements from position to position) and the forward's places.
 */
void max_pool_backward(const void* gradient, int64_t stride, const uint8_t* places, const int64_t* sizes,
                       int bfloat16, void* x_gradient, int threads) {
    Pooling p;
    memcpy(&p, sizes, sizeof p);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t line = 0; line < p.images * p.height; line++) {
        if (bfloat16) gather_line(gradient, stride, places, p, line, 1, x_gradient);
        else gather_line(gradient, stride, places, p, line, 0, x_gradient);
    }
}
