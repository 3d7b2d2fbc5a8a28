/* A cut of a photograph, resized: what PyTorch's `interpolate` makes of bytes with antialiasing, to the bit.

   Each output is a sum of neighbouring inputs, first along rows and then along columns, rounded to bytes
   after each. Weights are whole numbers of at most 15 bits, as many as the largest weight leaves room for. */

#include <math.h>
#include <stdlib.h>

#include "vectors.h"

#define MAX_PRECISION 22
#define PIXELS 8 /* of a row, together */
#define BYTES 32 /* of a line, together */

/* Weights of one direction: output i is the sum of `taps` (a multiple of two) inputs from `starts[i]` on. */
typedef struct {
    int32_t* starts;
    int16_t* weights;
    int taps, precision;
} Filter;

INLINE double triangle(double x) { return fabs(x) < 1.0 ? 1.0 - fabs(x) : 0.0; }

INLINE double cubic(double x) { /* Keys 1981 with a = -0.5, as in Pillow */
    const double a = -0.5;
    x = fabs(x);
    if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
    if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * a;
    return 0.0;
}

static void free_filter(Filter* filter) {
    free(filter->starts);
    free(filter->weights);
}

/* The first input that output `i` is made of and how many there are; their weights go to `line`, which has
   room for `most`. */
INLINE int weigh(int i, int inputs, double scale, double support, int is_cubic, int most, double* line,
                 int* start) {
    double center = scale * (i + 0.5), inverse = scale >= 1.0 ? 1.0 / scale : 1.0, total = 0.0;
    int first = (int)(center - support + 0.5), end = (int)(center + support + 0.5);
    if (first < 0) first = 0;
    if (end > inputs) end = inputs;
    int count = end - first > most ? most : end - first;
    for (int j = 0; j < count; j++) {
        double x = (j + first - center + 0.5) * inverse;
        total += line[j] = is_cubic ? cubic(x) : triangle(x);
    }
    for (int j = 0; j < count; j++) line[j] /= total;
    *start = first;
    return count;
}

/* Returns 0, with nothing to free, when memory is short. */
static int make_filter(Filter* filter, int inputs, int outputs, int is_cubic, int mirrored) {
    double scale = (double)inputs / outputs;
    double support = (is_cubic ? 2.0 : 1.0) * (scale >= 1.0 ? scale : 1.0);
    int most = 2 * (int)ceil(support) + 1, taps = most + 1;
    double* lines = calloc((size_t)outputs * taps, sizeof(double));
    filter->starts = malloc((size_t)outputs * sizeof(int32_t));
    filter->weights = malloc((size_t)outputs * taps * sizeof(int16_t));
    if (!lines || !filter->starts || !filter->weights) {
        free(lines);
        free_filter(filter);
        return 0;
    }
    double largest = 0.0;
    int longest = 1;
    for (int i = 0; i < outputs; i++) {
        double* line = lines + (size_t)i * taps;
        int from = mirrored ? outputs - 1 - i : i;
        int count = weigh(from, inputs, scale, support, is_cubic, most, line, &filter->starts[i]);
        for (int j = 0; j < count; j++)
            if (line[j] > largest) largest = line[j];
        if (count > longest) longest = count;
    }
    int precision = 0;
    while (precision < MAX_PRECISION && (int)(0.5 + largest * (1 << (precision + 1))) < 1 << 15) precision++;
    filter->precision = precision, filter->taps = longest + longest % 2;
    for (int i = 0; i < outputs; i++)
        for (int j = 0; j < filter->taps; j++) {
            double weight = lines[(size_t)i * taps + j] * (1 << precision);
            filter->weights[(size_t)i * filter->taps + j] = (int16_t)(weight + (weight < 0 ? -0.5 : 0.5));
        }
    free(lines);
    return 1;
}

INLINE uint8_t to_byte(int32_t sum, int precision) {
    int32_t value = sum >> precision;
    return value < 0 ? 0 : value > 255 ? 255 : value;
}

/* One output of a row of pixels, its channels `plane` bytes apart. */
INLINE void one_pixel(const uint8_t* row, const Filter* filter, int i, uint8_t* out, size_t plane) {
    const uint8_t* pixel = row + 3 * (size_t)filter->starts[i];
    const int16_t* weights = filter->weights + (size_t)i * filter->taps;
    int32_t sums[3];
    for (int c = 0; c < 3; c++) sums[c] = 1 << (filter->precision - 1);
    for (int j = 0; j < filter->taps; j++)
        for (int c = 0; c < 3; c++) sums[c] += weights[j] * pixel[3 * j + c];
    for (int c = 0; c < 3; c++) out[c * plane] = to_byte(sums[c], filter->precision);
}

#ifdef __AVX2__
/* Sums of two outputs: red, green, blue and nothing of one, then of the other. */
INLINE __m256i two_pixels(const uint8_t* row, const Filter* filter, int i) {
    const uint8_t *one = row + 3 * (size_t)filter->starts[i],
                  *other = row + 3 * (size_t)filter->starts[i + 1];
    const int16_t* weights = filter->weights + (size_t)i * filter->taps;
    const __m256i pairs =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1));
    __m256i sums = _mm256_set1_epi32(1 << (filter->precision - 1));
    for (int j = 0; j < filter->taps; j += 2) {
        __m128i low = _mm_loadl_epi64((const __m128i*)(one + 3 * j));
        __m128i high = _mm_loadl_epi64((const __m128i*)(other + 3 * j));
        __m256i pixels = _mm256_shuffle_epi8(_mm256_set_m128i(high, low), pairs);
        int32_t first, second;
        memcpy(&first, weights + j, 4);
        memcpy(&second, weights + filter->taps + j, 4);
        __m256i both = _mm256_set_m128i(_mm_set1_epi32(second), _mm_set1_epi32(first));
        sums = _mm256_add_epi32(sums, _mm256_madd_epi16(pixels, both));
    }
    return _mm256_sra_epi32(sums, _mm_cvtsi32_si128(filter->precision));
}

/* Eight outputs. */
INLINE void some_pixels(const uint8_t* row, const Filter* filter, int i, uint8_t* out, size_t plane) {
    /* Of each half register: pixels 0 2 4 6 of the lower, 1 3 5 7 of the upper. */
    __m256i first = _mm256_packs_epi32(two_pixels(row, filter, i), two_pixels(row, filter, i + 2));
    __m256i second = _mm256_packs_epi32(two_pixels(row, filter, i + 4), two_pixels(row, filter, i + 6));
    __m256i values = _mm256_packus_epi16(first, second);
    const __m256i by_channel =
        _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    values = _mm256_shuffle_epi8(values, by_channel);
    __m128i even = _mm256_castsi256_si128(values), odd = _mm256_extracti128_si256(values, 1);
    __m128i red_green = _mm_unpacklo_epi8(even, odd), blue = _mm_unpackhi_epi8(even, odd);
    _mm_storel_epi64((__m128i*)out, red_green);
    _mm_storeh_pd((double*)(out + plane), _mm_castsi128_pd(red_green));
    _mm_storel_epi64((__m128i*)(out + 2 * plane), blue);
}
#else
INLINE void some_pixels(const uint8_t* row, const Filter* filter, int i, uint8_t* out, size_t plane) {
    for (int k = 0; k < PIXELS; k++) one_pixel(row, filter, i + k, out + k, plane);
}
#endif

/* A row of pixels to `outputs` of each channel. */
static void along_row(const uint8_t* row, const Filter* filter, int outputs, uint8_t* out, size_t plane) {
    int i = 0;
    for (; i + PIXELS <= outputs; i += PIXELS) some_pixels(row, filter, i, out + i, plane);
    for (; i < outputs; i++) one_pixel(row, filter, i, out + i, plane);
}

/* One output of each of `BYTES` neighbouring columns; lines have `line` bytes, those of all channels. */
INLINE void some_columns(const uint8_t* lines, const int16_t* weights, const Filter* filter, int line,
                         uint8_t* out) {
#ifdef __AVX2__
    __m256i sums[4], zero = _mm256_setzero_si256();
    for (int k = 0; k < 4; k++) sums[k] = _mm256_set1_epi32(1 << (filter->precision - 1));
    for (int j = 0; j < filter->taps; j += 2) {
        __m256i one = _mm256_loadu_si256((const __m256i*)(lines + (size_t)j * line));
        __m256i other = _mm256_loadu_si256((const __m256i*)(lines + (size_t)(j + 1) * line));
        __m256i low = _mm256_unpacklo_epi8(one, other), high = _mm256_unpackhi_epi8(one, other);
        int32_t pair;
        memcpy(&pair, weights + j, 4);
        __m256i both = _mm256_set1_epi32(pair);
        sums[0] = _mm256_add_epi32(sums[0], _mm256_madd_epi16(_mm256_unpacklo_epi8(low, zero), both));
        sums[1] = _mm256_add_epi32(sums[1], _mm256_madd_epi16(_mm256_unpackhi_epi8(low, zero), both));
        sums[2] = _mm256_add_epi32(sums[2], _mm256_madd_epi16(_mm256_unpacklo_epi8(high, zero), both));
        sums[3] = _mm256_add_epi32(sums[3], _mm256_madd_epi16(_mm256_unpackhi_epi8(high, zero), both));
    }
    __m128i precision = _mm_cvtsi32_si128(filter->precision);
    for (int k = 0; k < 4; k++) sums[k] = _mm256_sra_epi32(sums[k], precision);
    __m256i values =
        _mm256_packus_epi16(_mm256_packs_epi32(sums[0], sums[1]), _mm256_packs_epi32(sums[2], sums[3]));
    _mm256_storeu_si256((__m256i*)out, values);
#else
    for (int x = 0; x < BYTES; x++) {
        int32_t sum = 1 << (filter->precision - 1);
        for (int j = 0; j < filter->taps; j++) sum += weights[j] * lines[(size_t)j * line + x];
        out[x] = to_byte(sum, filter->precision);
    }
#endif
}

/* Output row `i` of all channels: `line` bytes (a multiple of BYTES), from `lines` that are as long. */
static void along_columns(const uint8_t* lines, const Filter* filter, int i, int line, uint8_t* out) {
    const uint8_t* first = lines + (size_t)filter->starts[i] * line;
    const int16_t* weights = filter->weights + (size_t)i * filter->taps;
    for (int x = 0; x < line; x += BYTES) some_columns(first + x, weights, filter, line, out + x);
}

/* Resizes `height` rows of `width` pixels of three bytes, `stride` bytes (perhaps negative) from row to row,
   to `out`: three channels of `out_height` rows of `out_width` bytes, one after another, mirrored left to
   right or not. Returns 0 when memory is short. */
int resize(const uint8_t* pixels, int64_t stride, int width, int height, uint8_t* out, int out_width,
           int out_height, int is_cubic, int mirrored) {
    Filter across, down;
    if (!make_filter(&across, width, out_width, is_cubic, mirrored)) return 0;
    if (!make_filter(&down, height, out_height, is_cubic, 0)) {
        free_filter(&across);
        return 0;
    }
    /* Reading goes up to `taps` pixels and lines beyond the last, whose weights are 0. */
    size_t plane = (out_width + BYTES - 1) / BYTES * BYTES, line = 3 * plane;
    uint8_t* row = calloc(3 * ((size_t)width + across.taps) + 8, 1);
    uint8_t* lines = calloc((size_t)(height + down.taps) * line, 1);
    uint8_t* made = malloc(line);
    int enough = row && lines && made;
    for (int y = 0; y < height && enough; y++) {
        memcpy(row, pixels + y * stride, 3 * (size_t)width);
        along_row(row, &across, out_width, lines + y * line, plane);
    }
    for (int y = 0; y < out_height && enough; y++) {
        along_columns(lines, &down, y, (int)line, made);
        for (int c = 0; c < 3; c++)
            memcpy(out + ((size_t)c * out_height + y) * out_width, made + c * plane, out_width);
    }
    free(row), free(lines), free(made);
    free_filter(&across), free_filter(&down);
    return enough;
}
