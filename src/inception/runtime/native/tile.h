/* A tile of a convolution with bias, an added map and ReLU: outputs in registers, kernels streamed past them.

   A file that includes this has HALF, perhaps SIZES (rows and columns of its tiles), and in STEPS the bytes
   from one output's window to the next that it makes tiles for. Every tile is a function of its own. */

#include "engine.h"

/* What a register holds: a vector of 16 numbers, or a part of one. */
typedef float part __attribute__((vector_size(64 / PARTS)));

INLINE part times_add(int half, part sum, part kernel, const char* at) {
#ifdef __AVX512BF16__
    if (half) {
        int32_t pair;
        memcpy(&pair, at, 4);
        return (part)_mm512_dpbf16_ps((__m512)sum, (__m512bh)kernel, (__m512bh)_mm512_set1_epi32(pair));
    }
#endif
#ifdef __AVX512F__ /* always in one step, whatever the compiler thinks of chains of sums: the same bits in \
                      any tile */
    return (part)_mm512_fmadd_ps((__m512)kernel, _mm512_set1_ps(*(const float*)at), (__m512)sum);
#else
    return sum + kernel * *(const float*)at;
#endif
}

/* `count` of a tile's blocks from `from` on, of which the kernel has `vectors` side by side. */
INLINE void some_blocks(int rows, int columns, int vectors, int from, int count, int step, int half,
                        const Operation* o, const char* in, const char* weights, const char* bias, char* out,
                        const char* other) {
    part sums[COLUMNS][2 * PARTS];
#pragma GCC unroll 14
    for (int p = 0; p < rows * columns; p++)
#pragma GCC unroll 8
        for (int v = 0; v < count * PARTS; v++) {
            sums[p][v] = (part){0};
            if (bias) memcpy(&sums[p][v], bias + 64 * from + (int)sizeof(part) * v, sizeof(part));
        }
    int64_t down = o->in_row * o->stride_rows;
    weights += 64 * from;
    for (int64_t block = 0; block < o->blocks_in; block++)
        for (int64_t row = 0; row < o->kernel_rows; row++)
            for (int64_t column = 0; column < o->kernel_columns; column++) {
                const char* first = in + block * o->in_block + row * o->in_row + column * o->column;
                const char* second = first + down;
                for (int64_t word = 0; word < o->depth; word++) {
                    part kernel[2 * PARTS];
#pragma GCC unroll 8
                    for (int v = 0; v < count * PARTS; v++)
                        memcpy(&kernel[v], weights + (int)sizeof(part) * v, sizeof(part));
                    weights += 64 * vectors;
#pragma GCC unroll 14
                    for (int p = 0; p < rows * columns; p++) {
                        const char* at = (p < columns ? first : second) + (p % columns) * step + 4 * word;
#pragma GCC unroll 8
                        for (int v = 0; v < count * PARTS; v++)
                            sums[p][v] = times_add(half, sums[p][v], kernel[v], at);
                    }
                }
            }
    int narrow = half && !o->wide;
#pragma GCC unroll 14
    for (int p = 0; p < rows * columns; p++)
#pragma GCC unroll 2
        for (int v = 0; v < count; v++) {
            floats sum;
            memcpy(&sum, &sums[p][v * PARTS], sizeof sum);
            int64_t below = p >= columns, beside = p % columns, block = from + v;
            if (other)
                sum +=
                    load(other + block * o->other_block + below * o->other_row, LANES * beside, LANES, half);
            if (o->relu) sum = positive(sum);
            store(out + block * o->out_block + below * o->out_row, LANES * beside, LANES, narrow, sum);
        }
}

INLINE void tile(int rows, int columns, int vectors, int step, int half, const Operation* o, const char* in,
                 const char* weights, const char* bias, char* out, const char* other) {
    if (PARTS == 1) {
        some_blocks(rows, columns, vectors, 0, vectors, step, half, o, in, weights, bias, out, other);
    } else {
        for (int from = 0; from < vectors; from++)
            some_blocks(rows, columns, vectors, from, 1, step, half, o, in, weights, bias, out, other);
    }
}

#if COLUMNS == 14
#define ONE_ROW(make)                                                                                  \
    make(1, 1) make(1, 2) make(1, 3) make(1, 4) make(1, 5) make(1, 6) make(1, 7) make(1, 8) make(1, 9) \
        make(1, 10) make(1, 11) make(1, 12) make(1, 13) make(1, 14)
#define TWO_ROWS(make) make(2, 1) make(2, 2) make(2, 3) make(2, 4) make(2, 5) make(2, 6) make(2, 7)
#else
#define ONE_ROW(make) make(1, 1) make(1, 2) make(1, 3) make(1, 4) make(1, 5) make(1, 6)
#define TWO_ROWS(make)
#endif
#ifndef SIZES
#define SIZES(make) ONE_ROW(make) TWO_ROWS(make)
#endif

#define DEFINE(rows, columns, vectors, step)                                                        \
    static void tile_##rows##_##columns##_##vectors##_##step(const Operation* o, const char* in,    \
                                                             const char* weights, const char* bias, \
                                                             char* out, const char* other) {        \
        tile(rows, columns, vectors, step, HALF, o, in, weights, bias, out, other);                 \
    }
#define DEFINE_SIZE(rows, columns) STEPS(DEFINE, rows, columns, 1) STEPS(DEFINE, rows, columns, 2)
SIZES(DEFINE_SIZE)

#define ENTER(rows, columns, vectors, step) \
    [rows - 1][columns - 1][vectors - 1][INDEX_##step] = tile_##rows##_##columns##_##vectors##_##step,
#define ENTER_SIZE(rows, columns) STEPS(ENTER, rows, columns, 1) STEPS(ENTER, rows, columns, 2)
