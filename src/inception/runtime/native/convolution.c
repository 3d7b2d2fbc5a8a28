/* Convolution with bias, an added map and ReLU: outputs in registers, kernels streamed past them. */

#include "engine.h"

INLINE floats times_add(int half, floats sum, floats kernel, const char* at) {
    if (half) {
#ifdef __AVX512BF16__
        int32_t pair;
        memcpy(&pair, at, 4);
        return (floats)_mm512_dpbf16_ps((__m512)sum, (__m512bh)kernel, (__m512bh)_mm512_set1_epi32(pair));
#endif
    }
    return sum + kernel * *(const float*)at;
}

INLINE void put(int half, char* out, floats sum) {
    if (half) {
        halves part = rounded(sum);
        memcpy(out, &part, sizeof part);
    } else {
        memcpy(out, &sum, sizeof sum);
    }
}

INLINE void tile(int rows, int columns, int vectors, int step, int half, const Operation* o, const char* in,
                 const char* weights, const char* bias, char* out, const char* other) {
    floats sums[COLUMNS][2];
#pragma GCC unroll 14
    for (int p = 0; p < rows * columns; p++)
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++)
            sums[p][v] = bias ? load_floats((const float*)bias, LANES * v, LANES) : (floats){0};
    int64_t down = o->in_row * o->stride_rows;
    for (int64_t block = 0; block < o->blocks_in; block++)
        for (int64_t row = 0; row < o->kernel_rows; row++)
            for (int64_t column = 0; column < o->kernel_columns; column++) {
                const char* first = in + block * o->in_block + row * o->in_row + column * o->column;
                const char* second = first + down;
                for (int64_t word = 0; word < o->depth; word++) {
                    floats kernel[2];
#pragma GCC unroll 2
                    for (int v = 0; v < vectors; v++)
                        kernel[v] = load_floats((const float*)weights, LANES * v, LANES);
                    weights += 64 * vectors;
#pragma GCC unroll 14
                    for (int p = 0; p < rows * columns; p++) {
                        const char* at = (p < columns ? first : second) + (p % columns) * step + 4 * word;
#pragma GCC unroll 2
                        for (int v = 0; v < vectors; v++)
                            sums[p][v] = times_add(half, sums[p][v], kernel[v], at);
                    }
                }
            }
    int narrow = half && !o->wide;
    int pixel = narrow ? 32 : 64;
#pragma GCC unroll 14
    for (int p = 0; p < rows * columns; p++)
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++) {
            floats sum = sums[p][v];
            int below = p >= columns;
            if (other)
                sum += load(other + v * o->other_block + below * o->other_row + (p % columns) * (half ? 32 : 64),
                            0, LANES, half);
            if (o->relu) sum = positive(sum);
            put(narrow, out + v * o->out_block + below * o->out_row + (p % columns) * pixel, sum);
        }
}

/* Every tile that is used, as a function of its own: rows and columns of outputs, blocks of channels, and the
   bytes from one output's window to the next. */
#if COLUMNS == 14
#define SIZES(make)                                                                                        \
    make(1, 1) make(1, 2) make(1, 3) make(1, 4) make(1, 5) make(1, 6) make(1, 7) make(1, 8) make(1, 9)     \
        make(1, 10) make(1, 11) make(1, 12) make(1, 13) make(1, 14) make(2, 1) make(2, 2) make(2, 3)       \
            make(2, 4) make(2, 5) make(2, 6) make(2, 7)
#else
#define SIZES(make) make(1, 1) make(1, 2) make(1, 3)
#endif
#define STEPS(make, rows, columns, vectors)                                                                \
    make(rows, columns, vectors, 64, 0) make(rows, columns, vectors, 128, 0) make(rows, columns, vectors, 24, 0) \
        HALF_STEPS(make, rows, columns, vectors)
#ifdef __AVX512BF16__
#define HALF_STEPS(make, rows, columns, vectors)                                                           \
    make(rows, columns, vectors, 32, 1) make(rows, columns, vectors, 64, 1) make(rows, columns, vectors, 12, 1)
#else
#define HALF_STEPS(make, rows, columns, vectors)
#endif
enum { STEP_64_0, STEP_128_0, STEP_24_0, STEP_32_1, STEP_64_1, STEP_12_1, ALL_STEPS };

#define DEFINE(rows, columns, vectors, step, half)                                                         \
    static void tile_##rows##_##columns##_##vectors##_##step##_##half(                                     \
        const Operation* o, const char* in, const char* weights, const char* bias, char* out,              \
        const char* other) {                                                                               \
        tile(rows, columns, vectors, step, half, o, in, weights, bias, out, other);                        \
    }
#define DEFINE_SIZE(rows, columns) STEPS(DEFINE, rows, columns, 1) STEPS(DEFINE, rows, columns, 2)
SIZES(DEFINE_SIZE)

#define ENTER(rows, columns, vectors, step, half)                                                          \
    [rows - 1][columns - 1][vectors - 1][STEP_##step##_##half] = tile_##rows##_##columns##_##vectors##_##step##_##half,
#define ENTER_SIZE(rows, columns) STEPS(ENTER, rows, columns, 1) STEPS(ENTER, rows, columns, 2)
static const Tile tiles[2][COLUMNS][2][ALL_STEPS] = {SIZES(ENTER_SIZE)};

static int64_t step_of(int64_t step, int64_t half) {
    if (half) return step == 32 ? STEP_32_1 : step == 64 ? STEP_64_1 : STEP_12_1;
    return step == 64 ? STEP_64_0 : step == 128 ? STEP_128_0 : STEP_24_0;
}

Tile tile_of(int64_t rows, int64_t columns, int64_t vectors, int64_t step, int64_t half) {
    return tiles[rows - 1][columns - 1][vectors - 1][step_of(step, half)];
}

/* The outputs cut into tiles: rows of a tile, tiles side by side and below each other. */
typedef struct {
    int64_t rows, across, down;
} Grid;

static Grid grid_of(const Operation* o) {
    int64_t rows = COLUMNS == 14 && o->width_out <= COLUMNS / 2 && o->height_out > 1 ? 2 : 1;
    return (Grid){rows, (o->width_out + COLUMNS - 1) / COLUMNS, (o->height_out + rows - 1) / rows};
}

static void one_tile(const Run* run, Grid grid, int64_t image, int64_t block, int64_t index) {
    const Operation* o = run->operation;
    int64_t row = index / grid.across * grid.rows, part = index % grid.across;
    int64_t column = part * o->width_out / grid.across, next = (part + 1) * o->width_out / grid.across;
    int64_t rows = o->height_out - row < grid.rows ? 1 : grid.rows, vectors = o->blocks_out - block >= 2 ? 2 : 1;
    int64_t kernel_bytes = o->blocks_in * o->kernel_rows * o->kernel_columns * o->depth * 64;
    const char* other = 0;
    if (o->other >= 0)
        other = run->arena + o->other + image * o->other_image + block * o->other_block + row * o->other_row +
                column * (o->half ? 32 : 64);
    tile_of(rows, next - column, vectors, o->step, o->half)(
        o, run->arena + o->in + image * o->in_image + row * o->stride_rows * o->in_row + column * o->step,
        run->weights + o->weights + block * kernel_bytes, run->weights + o->bias + block * 64,
        run->arena + o->out + image * o->out_image + block * o->out_block + row * o->out_row +
            column * (o->half && !o->wide ? 32 : 64),
        other);
}

/* One or two blocks of channels of a share of one image's tiles. */
static void some_tiles(const Run* run, int64_t index, int64_t thread) {
    const Operation* o = run->operation;
    Grid grid = grid_of(o);
    int64_t tiles = grid.across * grid.down, groups = (o->blocks_out + 1) / 2, share, group, image;
    if (o->by_rows) {
        group = index % groups, image = index / groups % o->images, share = index / groups / o->images;
    } else {
        share = index % run->shares, image = index / run->shares % o->images, group = index / run->shares / o->images;
    }
    for (int64_t t = share * tiles / run->shares; t < (share + 1) * tiles / run->shares; t++)
        one_tile(run, grid, image, 2 * group, t);
}

#define JOBS_PER_THREAD 6 /* so that threads end together though one is disturbed */

void convolution(Run* run) {
    const Operation* o = run->operation;
    int64_t pieces = o->images * ((o->blocks_out + 1) / 2), threads = threads_of(run->pool);
    int64_t more = (JOBS_PER_THREAD + pieces - 1) / pieces;
    run->shares = o->by_rows ? threads * more : (threads * JOBS_PER_THREAD + pieces - 1) / pieces;
    parallel(run->pool, pieces * run->shares, some_tiles, run);
}
