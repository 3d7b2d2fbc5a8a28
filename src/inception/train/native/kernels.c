/* Training kernels for CPUs: batch normalisation with ReLU, and max pooling, forward and backward.

   A feature map N x C x H x W, channels last, is a matrix: a row for every image and position, a column for
   every channel, `stride` elements from row to row (more than C where the map is a slice of a wider one).
   Elements are float32 or bfloat16; all arithmetic is float32, sums over rows are continued in double.
   Work is cut into a fixed number of pieces, so that results do not depend on the number of threads. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline))
#define LANES 16
#define PIECES 64
#define TOGETHER 4
#define BLOCK_ROWS 128
#define LARGEST_KERNEL 16
#define MOST_WINDOWS (LARGEST_KERNEL * LARGEST_KERNEL)

typedef float floats __attribute__((vector_size(4 * LANES)));
typedef int32_t ints __attribute__((vector_size(4 * LANES)));
typedef uint32_t words __attribute__((vector_size(4 * LANES)));
typedef uint16_t halves __attribute__((vector_size(2 * LANES)));
typedef uint8_t bytes __attribute__((vector_size(LANES)));

/* What a piece needs to add up, and so apart from the others: 2 C doubles and 3 C floats. */
typedef struct {
    double *sums;
    float *lines;
} Workspace;

static int make_workspace(Workspace *space, int64_t channels) {
    space->sums = calloc(2 * PIECES * (size_t)channels, sizeof(double));
    space->lines = malloc(3 * PIECES * (size_t)channels * sizeof(float));
    return space->sums && space->lines;
}

static void free_workspace(Workspace *space) {
    free(space->sums);
    free(space->lines);
}

INLINE floats choose(ints mask, floats yes, floats no) {
    return (floats)((mask & (ints)yes) | (~mask & (ints)no));
}

INLINE floats load(const void *data, int64_t at, int count, int bfloat16) {
    if (bfloat16) {
        halves part = {0};
        memcpy(&part, (const uint16_t *)data + at, 2 * count);
        return (floats)(__builtin_convertvector(part, words) << 16);
    }
    floats part = {0};
    memcpy(&part, (const float *)data + at, 4 * count);
    return part;
}

INLINE halves rounded(floats values) { /* to the nearest bfloat16, ties to even */
#ifdef __AVX512BF16__
    return (halves)_mm512_cvtneps_pbh((__m512)values);
#else
    words bits = (words)values;
    words nearest = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
    words nan = (words)(values != values);
    return __builtin_convertvector((nan & 0x7FC0) | (~nan & nearest), halves);
#endif
}

INLINE void store(void *data, int64_t at, int count, int bfloat16, floats values) {
    if (bfloat16) {
        halves part = rounded(values);
        memcpy((uint16_t *)data + at, &part, 2 * count);
    } else {
        memcpy((float *)data + at, &values, 4 * count);
    }
}

INLINE floats parameter(const float *values, int64_t at, int count) { return load(values, at, count, 0); }

/* Calls `step(column, lanes)` for all columns: whole vectors, and what is left. */
#define FOR_COLUMNS(channels, step)                                                      \
    do {                                                                                 \
        int64_t column = 0;                                                              \
        for (; column + LANES <= (channels); column += LANES) step(column, LANES);       \
        if (column < (channels)) step(column, (int)((channels) - column));               \
    } while (0)

/* Calls `step(row, count)` for all rows: a few together, and what is left one by one. */
#define FOR_ROWS(first, last, step)                                                      \
    do {                                                                                 \
        int64_t row = first;                                                             \
        for (; row + TOGETHER <= (last); row += TOGETHER) step(row, TOGETHER);           \
        for (; row < (last); row++) step(row, 1);                                        \
    } while (0)

/* ---- batch normalisation and ReLU ---- */

/* Adds to `sum` and `squares` what `count` rows differ from `origin`. */
INLINE void differences(const void *x, int64_t stride, int64_t row, int count, int64_t channels, int bfloat16,
                        const float *origin, float *sum, float *squares) {
#define STEP(column, lanes)                                                                          \
    do {                                                                                             \
        floats base = parameter(origin, column, lanes), s = parameter(sum, column, lanes);           \
        floats q = parameter(squares, column, lanes);                                                \
        for (int r = 0; r < count; r++) {                                                            \
            floats d = load(x, (row + r) * stride + column, lanes, bfloat16) - base;                 \
            s += d;                                                                                  \
            q += d * d;                                                                              \
        }                                                                                            \
        store(sum, column, lanes, 0, s);                                                             \
        store(squares, column, lanes, 0, q);                                                         \
    } while (0)
    FOR_COLUMNS(channels, STEP);
#undef STEP
}

/* Mean and sum of squared differences from it, for the rows of a piece. From every block of rows its first is
   taken, so that a large mean does not cancel the digits of the spread; `lines` holds 3 C floats. */
INLINE void spread_of_piece(const void *x, int64_t channels, int64_t stride, int64_t first, int64_t last,
                            int bfloat16, double *mean, double *spread, float *lines) {
    float *origin = lines, *sum = lines + channels, *squares = sum + channels;
    for (int64_t start = first; start < last; start += BLOCK_ROWS) {
        int64_t end = start + BLOCK_ROWS < last ? start + BLOCK_ROWS : last;
        memset(sum, 0, 2 * channels * sizeof(float));
#define STEP(column, lanes) store(origin, column, lanes, 0, load(x, start * stride + column, lanes, bfloat16))
        FOR_COLUMNS(channels, STEP);
#undef STEP
#define STEP(row, count) differences(x, stride, row, count, channels, bfloat16, origin, sum, squares)
        FOR_ROWS(start, end, STEP);
#undef STEP
        double seen = (double)(start - first), count = (double)(end - start), total = seen + count;
        for (int64_t channel = 0; channel < channels; channel++) {
            double s = sum[channel], apart = origin[channel] + s / count - mean[channel];
            mean[channel] += apart * (count / total);
            spread[channel] += squares[channel] - s * s / count + apart * apart * (seen * count / total);
        }
    }
}

INLINE floats normalised(floats x, floats scale, floats shift) { return x * scale + shift; }

INLINE void apply_to_rows(const void *x, int64_t stride, int64_t row, int count, int64_t channels, int bfloat16,
                          const float *scale, const float *shift, void *y) {
#define STEP(column, lanes)                                                                          \
    do {                                                                                             \
        floats a = parameter(scale, column, lanes), b = parameter(shift, column, lanes);             \
        for (int r = 0; r < count; r++) {                                                            \
            floats value = normalised(load(x, (row + r) * stride + column, lanes, bfloat16), a, b);  \
            value = choose(value <= 0.0f, (floats){0}, value); /* a NaN stays one */                 \
            store(y, (row + r) * channels + column, lanes, bfloat16, value);                         \
        }                                                                                            \
    } while (0)
    FOR_COLUMNS(channels, STEP);
#undef STEP
}

INLINE void apply_to_piece(const void *x, int64_t channels, int64_t stride, int64_t first, int64_t last,
                           int bfloat16, const float *scale, const float *shift, void *y) {
#define STEP(row, count) apply_to_rows(x, stride, row, count, channels, bfloat16, scale, shift, y)
    FOR_ROWS(first, last, STEP);
#undef STEP
}

/* y = max(0, (x - mean) / sqrt(variance + eps) * weight + bias), with the statistics of these rows.

   state: 4 x C floats for the backward pass: scale, shift, mean, 1 / sqrt(variance + eps). running_mean,
   running_var: moved by `momentum` towards the mean and the unbiased variance. Returns 0, or 1 when memory is
   short. */
int norm_relu_forward(const void *x, int64_t rows, int64_t channels, int64_t stride, int bfloat16,
                      const float *weight, const float *bias, float *running_mean, float *running_var,
                      double momentum, double eps, void *y, float *state, int threads) {
    float *scale = state, *shift = state + channels, *mean = shift + channels, *inverse = mean + channels;
    Workspace space;
    if (!make_workspace(&space, channels)) {
        free_workspace(&space);
        return 1;
    }
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int piece = 0; piece < PIECES; piece++) {
        int64_t first = rows * piece / PIECES, last = rows * (piece + 1) / PIECES;
        double *own = space.sums + 2 * piece * channels;
        float *lines = space.lines + 3 * piece * channels;
        if (bfloat16) spread_of_piece(x, channels, stride, first, last, 1, own, own + channels, lines);
        else spread_of_piece(x, channels, stride, first, last, 0, own, own + channels, lines);
    }
    for (int64_t channel = 0; channel < channels; channel++) {
        double centre = 0.0, spread = 0.0, seen = 0.0;
        for (int piece = 0; piece < PIECES; piece++) {
            double count = (double)(rows * (piece + 1) / PIECES - rows * piece / PIECES);
            if (count == 0.0) continue;
            double apart = space.sums[2 * piece * channels + channel] - centre, total = seen + count;
            centre += apart * (count / total);
            spread += space.sums[(2 * piece + 1) * channels + channel] + apart * apart * (seen * count / total);
            seen = total;
        }
        inverse[channel] = (float)(1.0 / sqrt(spread / seen + eps));
        scale[channel] = weight[channel] * inverse[channel];
        shift[channel] = (float)(bias[channel] - centre * scale[channel]);
        mean[channel] = (float)centre;
        running_mean[channel] += (float)(momentum * (centre - running_mean[channel]));
        running_var[channel] += (float)(momentum * (spread / (seen - 1.0) - running_var[channel]));
    }
    free_workspace(&space);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int piece = 0; piece < PIECES; piece++) {
        int64_t first = rows * piece / PIECES, last = rows * (piece + 1) / PIECES;
        if (bfloat16) apply_to_piece(x, channels, stride, first, last, 1, scale, shift, y);
        else apply_to_piece(x, channels, stride, first, last, 0, scale, shift, y);
    }
    return 0;
}

/* The gradient where ReLU let the value through, else 0. */
INLINE floats passed(floats gradient, floats x, floats scale, floats shift) {
    return choose(normalised(x, scale, shift) <= 0.0f, (floats){0}, gradient);
}

INLINE void gradient_sums_of_rows(const void *gradient, int64_t gradient_stride, const void *x, int64_t stride,
                                  int64_t row, int count, int64_t channels, int bfloat16, const float *scale,
                                  const float *shift, const float *mean, float *sum, float *with_x) {
#define STEP(column, lanes)                                                                                  \
    do {                                                                                                     \
        floats a = parameter(scale, column, lanes), b = parameter(shift, column, lanes);                     \
        floats m = parameter(mean, column, lanes);                                                           \
        floats s = parameter(sum, column, lanes), p = parameter(with_x, column, lanes);                      \
        for (int r = 0; r < count; r++) {                                                                    \
            floats value = load(x, (row + r) * stride + column, lanes, bfloat16);                            \
            floats g = load(gradient, (row + r) * gradient_stride + column, lanes, bfloat16);                \
            g = passed(g, value, a, b);                                                                      \
            s += g;                                                                                          \
            p += g * (value - m);                                                                            \
        }                                                                                                    \
        store(sum, column, lanes, 0, s);                                                                     \
        store(with_x, column, lanes, 0, p);                                                                  \
    } while (0)
    FOR_COLUMNS(channels, STEP);
#undef STEP
}

/* Sums of the passed gradient, and of it times (x - mean), over the rows of a piece; `lines` holds 2 C floats. */
INLINE void gradient_sums_of_piece(const void *gradient, int64_t gradient_stride, const void *x, int64_t stride,
                                   int64_t channels, int64_t first, int64_t last, int bfloat16,
                                   const float *scale, const float *shift, const float *mean, double *total,
                                   double *product, float *lines) {
    float *sum = lines, *with_x = lines + channels;
    for (int64_t start = first; start < last; start += BLOCK_ROWS) {
        int64_t end = start + BLOCK_ROWS < last ? start + BLOCK_ROWS : last;
        memset(lines, 0, 2 * channels * sizeof(float));
#define STEP(row, count)                                                                                     \
    gradient_sums_of_rows(gradient, gradient_stride, x, stride, row, count, channels, bfloat16, scale, shift, \
                          mean, sum, with_x)
        FOR_ROWS(start, end, STEP);
#undef STEP
        for (int64_t channel = 0; channel < channels; channel++) {
            total[channel] += sum[channel];
            product[channel] += with_x[channel];
        }
    }
}

/* The gradient of x is straight in the passed gradient and in x: a g + b x + c, by channel. */
INLINE void gradient_of_rows(const void *gradient, int64_t gradient_stride, const void *x, int64_t stride,
                             int64_t row, int count, int64_t channels, int bfloat16, const float *scale,
                             const float *shift, const float *slope, const float *constant, void *result) {
#define STEP(column, lanes)                                                                                  \
    do {                                                                                                     \
        floats a = parameter(scale, column, lanes), b = parameter(shift, column, lanes);                     \
        floats c = parameter(slope, column, lanes), d = parameter(constant, column, lanes);                  \
        for (int r = 0; r < count; r++) {                                                                    \
            floats value = load(x, (row + r) * stride + column, lanes, bfloat16);                            \
            floats g = load(gradient, (row + r) * gradient_stride + column, lanes, bfloat16);                \
            store(result, (row + r) * stride + column, lanes, bfloat16,                                      \
                  a * passed(g, value, a, b) + (c * value + d));                                             \
        }                                                                                                    \
    } while (0)
    FOR_COLUMNS(channels, STEP);
#undef STEP
}

INLINE void gradient_of_piece(const void *gradient, int64_t gradient_stride, const void *x, int64_t stride,
                              int64_t channels, int64_t first, int64_t last, int bfloat16, const float *scale,
                              const float *shift, const float *slope, const float *constant, void *result) {
#define STEP(row, count)                                                                                     \
    gradient_of_rows(gradient, gradient_stride, x, stride, row, count, channels, bfloat16, scale, shift,      \
                     slope, constant, result)
    FOR_ROWS(first, last, STEP);
#undef STEP
}

/* Gradients of x (`stride` elements from row to row, like x), weight and bias; state is the forward pass's. Returns 0, or 1 when
   memory is short. */
int norm_relu_backward(const void *gradient, int64_t gradient_stride, const void *x, int64_t rows,
                       int64_t channels, int64_t stride, int bfloat16, const float *state, void *x_gradient,
                       float *weight_gradient, float *bias_gradient, int threads) {
    const float *scale = state, *shift = state + channels, *mean = shift + channels, *inverse = mean + channels;
    Workspace space;
    if (!make_workspace(&space, channels)) {
        free_workspace(&space);
        return 1;
    }
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int piece = 0; piece < PIECES; piece++) {
        int64_t first = rows * piece / PIECES, last = rows * (piece + 1) / PIECES;
        double *total = space.sums + 2 * piece * channels, *product = total + channels;
        float *lines = space.lines + 3 * piece * channels;
        if (bfloat16)
            gradient_sums_of_piece(gradient, gradient_stride, x, stride, channels, first, last, 1, scale, shift, mean,
                                   total, product, lines);
        else
            gradient_sums_of_piece(gradient, gradient_stride, x, stride, channels, first, last, 0, scale, shift, mean,
                                   total, product, lines);
    }
    float *slope = space.lines, *constant = slope + channels;
    for (int64_t channel = 0; channel < channels; channel++) {
        double total = 0.0, product = 0.0;
        for (int piece = 0; piece < PIECES; piece++) {
            total += space.sums[2 * piece * channels + channel];
            product += space.sums[(2 * piece + 1) * channels + channel];
        }
        double tilt = -(double)scale[channel] * inverse[channel] * inverse[channel] * product / (double)rows;
        slope[channel] = (float)tilt;
        constant[channel] = (float)(-scale[channel] * total / (double)rows - tilt * mean[channel]);
        weight_gradient[channel] = (float)(product * inverse[channel]);
        bias_gradient[channel] = (float)total;
    }
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int piece = 0; piece < PIECES; piece++) {
        int64_t first = rows * piece / PIECES, last = rows * (piece + 1) / PIECES;
        if (bfloat16)
            gradient_of_piece(gradient, gradient_stride, x, stride, channels, first, last, 1, scale, shift, slope,
                              constant, x_gradient);
        else
            gradient_of_piece(gradient, gradient_stride, x, stride, channels, first, last, 0, scale, shift, slope,
                              constant, x_gradient);
    }
    free_workspace(&space);
    return 0;
}

/* ---- max pooling ---- */

/* Images N x height x width x C into N x out_height x out_width x C, square windows; what a window has outside
   the image does not count. */
typedef struct {
    int64_t images, height, width, channels, out_height, out_width;
    int64_t kernel, step, top, left; /* rows and columns of padding before the image */
} Pooling;

INLINE int64_t at_least(int64_t a, int64_t b) { return a > b ? a : b; }
INLINE int64_t at_most(int64_t a, int64_t b) { return a < b ? a : b; }

/* Where `value` is larger than `best`, or not a number: it and its place instead. */
INLINE void take_larger(floats value, int32_t own, floats *best, ints *place) {
#ifdef __AVX512F__
    __m512 v = (__m512)value;
    __mmask16 larger = _mm512_cmp_ps_mask(v, (__m512)*best, _CMP_GT_OQ) | _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
    *best = (floats)_mm512_mask_mov_ps((__m512)*best, larger, v);
    *place = (ints)_mm512_mask_mov_epi32((__m512i)*place, larger, _mm512_set1_epi32(own));
#else
    ints larger = (value > *best) | (value != value);
    *best = choose(larger, value, *best);
    *place = (larger & own) | (~larger & *place);
#endif
}

/* The largest value of each window, and its place in the window; of equal ones the first, a NaN before all. */
INLINE void pool_line(const void *x, int64_t stride, Pooling p, int64_t line, int bfloat16, void *y, uint8_t *places) {
    int64_t image = line / p.out_height, top = (line % p.out_height) * p.step - p.top;
    int64_t first_i = at_least(0, -top), last_i = at_most(p.kernel, p.height - top);
    for (int64_t out = 0; out < p.out_width; out++) {
        int64_t left = out * p.step - p.left;
        int64_t first_j = at_least(0, -left), last_j = at_most(p.kernel, p.width - left);
        int64_t corner = (image * p.height + top) * p.width + left, target = (line * p.out_width + out) * p.channels;
#define STEP(column, lanes)                                                                              \
    do {                                                                                                 \
        floats best = (floats){0} - INFINITY;                                                            \
        ints place = (ints){0} + (int32_t)(first_i * p.kernel + first_j);                                \
        for (int64_t i = first_i; i < last_i; i++) {                                                     \
            int64_t at = (corner + i * p.width + first_j) * stride + column;                             \
            for (int64_t j = first_j; j < last_j; j++, at += stride)                                     \
                take_larger(load(x, at, lanes, bfloat16), (int32_t)(i * p.kernel + j), &best, &place);   \
        }                                                                                                \
        store(y, target + column, lanes, bfloat16, best);                                                \
        bytes packed = __builtin_convertvector(place, bytes);                                            \
        memcpy(places + target + column, &packed, lanes);                                                \
    } while (0)
        FOR_COLUMNS(p.channels, STEP);
#undef STEP
    }
}

/* places: for each element of y where in its window (row by row) it came from. kernel: at most LARGEST_KERNEL. */
void max_pool_forward(const void *x, int64_t stride, const int64_t *sizes, int bfloat16, void *y, uint8_t *places,
                      int threads) {
    Pooling p;
    memcpy(&p, sizes, sizeof p);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t line = 0; line < p.images * p.out_height; line++) {
        if (bfloat16) pool_line(x, stride, p, line, 1, y, places);
        else pool_line(x, stride, p, line, 0, y, places);
    }
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

INLINE void gather(const void *gradient, const uint8_t *places, const Window *windows, int count, int64_t channels,
                   int bfloat16, void *result, int64_t target) {
#define STEP(column, lanes)                                                                              \
    do {                                                                                                 \
        floats sum = {0};                                                                                \
        for (int w = 0; w < count; w++) {                                                                \
            bytes packed = {0};                                                                          \
            memcpy(&packed, places + windows[w].place + column, lanes);                                  \
            floats g = load(gradient, windows[w].gradient + column, lanes, bfloat16);                    \
            sum = plus_where(packed, windows[w].own, g, sum);                                            \
        }                                                                                                \
        store(result, target + column, lanes, bfloat16, sum);                                            \
    } while (0)
    FOR_COLUMNS(channels, STEP);
#undef STEP
}

/* Every position of a line of the image gathers from the windows over it, in their order. */
INLINE void gather_line(const void *gradient, int64_t stride, const uint8_t *places, Pooling p, int64_t line,
                        int bfloat16, void *result) {
    int64_t image = line / p.height, row = line % p.height + p.top;
    int64_t first_i = at_least(0, row - p.kernel + p.step) / p.step, last_i = at_most(p.out_height - 1, row / p.step);
    for (int64_t x = 0; x < p.width; x++) {
        int64_t place = x + p.left, first_j = at_least(0, place - p.kernel + p.step) / p.step;
        int64_t last_j = at_most(p.out_width - 1, place / p.step), target = (line * p.width + x) * p.channels;
        Window windows[MOST_WINDOWS];
        int count = 0;
        for (int64_t i = first_i; i <= last_i; i++)
            for (int64_t j = first_j; j <= last_j; j++) {
                int64_t at = (image * p.out_height + i) * p.out_width + j;
                windows[count++] = (Window){at * stride, at * p.channels,
                                            (uint8_t)((row - i * p.step) * p.kernel + place - j * p.step)};
            }
        switch (count) { /* the usual numbers with the loop unrolled */
        case 1: gather(gradient, places, windows, 1, p.channels, bfloat16, result, target); break;
        case 2: gather(gradient, places, windows, 2, p.channels, bfloat16, result, target); break;
        case 4: gather(gradient, places, windows, 4, p.channels, bfloat16, result, target); break;
        case 9: gather(gradient, places, windows, 9, p.channels, bfloat16, result, target); break;
        default: gather(gradient, places, windows, count, p.channels, bfloat16, result, target);
        }
    }
}

/* The gradient of x, from that of y (`stride` elements from position to position) and the forward's places. */
void max_pool_backward(const void *gradient, int64_t stride, const uint8_t *places, const int64_t *sizes,
                       int bfloat16, void *x_gradient, int threads) {
    Pooling p;
    memcpy(&p, sizes, sizeof p);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int64_t line = 0; line < p.images * p.height; line++) {
        if (bfloat16) gather_line(gradient, stride, places, p, line, 1, x_gradient);
        else gather_line(gradient, stride, places, p, line, 0, x_gradient);
    }
}
