/* Vectors of 16 numbers, and the maps of training.

   A feature map N x C x H x W, channels last, is a matrix: a row for every image and position, a column for
   every channel, `stride` elements from row to row (more than C where the map is a slice of a wider one).
   Elements are float32 or bfloat16; all arithmetic is in float32. */

#pragma once
#include <stdint.h>
#include <string.h>
#ifdef __AVX__
#include <immintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline))
#define LANES 16

typedef float floats __attribute__((vector_size(4 * LANES)));
typedef int32_t ints __attribute__((vector_size(4 * LANES)));
typedef uint32_t words __attribute__((vector_size(4 * LANES)));
typedef uint16_t halves __attribute__((vector_size(2 * LANES)));
typedef uint8_t bytes __attribute__((vector_size(LANES)));

INLINE floats choose(ints mask, floats yes, floats no) {
    return (floats)((mask & (ints)yes) | (~mask & (ints)no));
}

/* Comparisons of whole vectors fall apart into single numbers where registers are smaller. */
#if defined(__AVX512F__)
INLINE floats greater(floats a, floats b) { return (floats)_mm512_max_ps((__m512)a, (__m512)b); }
INLINE floats root(floats x) { return (floats)_mm512_sqrt_ps((__m512)x); }
#elif defined(__AVX__)
typedef union {
    floats whole;
    __m256 parts[2];
} Parts;
INLINE floats greater(floats a, floats b) {
    Parts x = {a}, y = {b};
    for (int i = 0; i < 2; i++) x.parts[i] = _mm256_max_ps(x.parts[i], y.parts[i]);
    return x.whole;
}
INLINE floats root(floats x) {
    Parts y = {x};
    for (int i = 0; i < 2; i++) y.parts[i] = _mm256_sqrt_ps(y.parts[i]);
    return y.whole;
}
#else
INLINE floats greater(floats a, floats b) { return choose(a > b, a, b); }
INLINE floats root(floats x) {
    for (int i = 0; i < LANES; i++) x[i] = __builtin_sqrtf(x[i]);
    return x;
}
#endif

INLINE floats positive(floats values) { return greater((floats){0}, values); } /* ReLU; NaN stays NaN */

INLINE floats widened(halves part) {
#ifdef __AVX512F__ /* the compiler's own conversion goes through memory */
    return (floats)_mm512_slli_epi32(_mm512_cvtepu16_epi32((__m256i)part), 16);
#else
    return (floats)(__builtin_convertvector(part, words) << 16);
#endif
}

/* Where vectors are not full, the compiler would go through memory for what masks read and write at once. */
#if defined(__AVX512BW__) && defined(__AVX512VL__)
#define FIRST(count) ((__mmask16)((1u << (count)) - 1))
#endif

INLINE floats load(const void* data, int64_t at, int count, int bfloat16) {
#ifdef FIRST
    if (count < LANES && bfloat16)
        return widened((halves)_mm256_maskz_loadu_epi16(FIRST(count), (const uint16_t*)data + at));
    if (count < LANES) return (floats)_mm512_maskz_loadu_ps(FIRST(count), (const float*)data + at);
#endif
    if (bfloat16) {
        halves part = {0};
        memcpy(&part, (const uint16_t*)data + at, 2 * count);
        return widened(part);
    }
    floats part = {0};
    memcpy(&part, (const float*)data + at, 4 * count);
    return part;
}

INLINE halves rounded(floats values) { /* to the nearest bfloat16; the instruction makes denormals 0 */
#ifdef __AVX512BF16__
    return (halves)_mm512_cvtneps_pbh((__m512)values);
#else
    words bits = (words)values;
    words nearest = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
    words nan = (words)(values != values);
    return __builtin_convertvector((nan & 0x7FC0) | (~nan & nearest), halves);
#endif
}

INLINE void store(void* data, int64_t at, int count, int bfloat16, floats values) {
#ifdef FIRST
    if (count < LANES) {
        if (bfloat16) _mm256_mask_storeu_epi16((uint16_t*)data + at, FIRST(count), (__m256i)rounded(values));
        else _mm512_mask_storeu_ps((float*)data + at, FIRST(count), (__m512)values);
        return;
    }
#endif
    if (bfloat16) {
        halves part = rounded(values);
        memcpy((uint16_t*)data + at, &part, 2 * count);
    } else {
        memcpy((float*)data + at, &values, 4 * count);
    }
}

INLINE floats load_floats(const float* values, int64_t at, int count) { return load(values, at, count, 0); }

/* Calls `step(column, lanes)` for all columns: whole vectors of `width`, and what is left. */
#define FOR_COLUMNS(channels, width, step)                                             \
    do {                                                                               \
        int64_t column = 0;                                                            \
        for (; column + (width) <= (channels); column += (width)) step(column, width); \
        if (column < (channels)) step(column, (int)((channels) - column));             \
    } while (0)
