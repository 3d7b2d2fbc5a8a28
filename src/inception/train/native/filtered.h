/* Convolution of 3x3, stride 1, padding 1 by minimal filtering, of maps that are channels last.

   A file that includes this has HALF, POINTS (values of a tile along a side) and NAME, the function's. Each
   thread takes some tiles at a time through both transforms and the products between, in memory of its own.
   How tiles are grouped depends on sizes alone, so that sums do not depend on the number of threads. */

#include <omp.h>
#include <stdlib.h>

#define SIZES(make) ONE_ROW(make)
#include "tile.h"
#include "winograd.h"

#define OUTPUTS (POINTS - 2)
#define POSITIONS (POINTS * POINTS)
#define VALUE (HALF ? 32 : 64) /* bytes of 16 channels */
#define ROOM (512 << 10)       /* of tiles, bytes: what stays in a processor's own cache */

static const Tile products[1][COLUMNS][2][1] = {SIZES(ENTER_SIZE)};

typedef struct {
    const char* x;
    char* y;
    const char* kernel; /* transformed: position, 32 outputs, inputs (in pairs where HALF), output */
    int64_t x_stride, images, height, width, blocks_in, blocks_out, down, across;
} Filtered;

/* Where tile `index` lies: image, and its first row and column of outputs. */
typedef struct {
    int64_t image, row, column;
} Corner;

static Corner corner_of(const Filtered* f, int64_t index) {
    int64_t each = f->down * f->across, within = index % each;
    return (Corner){index / each, within / f->across * OUTPUTS, within % f->across * OUTPUTS};
}

static void transform_input(const Filtered* f, int64_t first, int64_t count, char* room) {
    int64_t apart = f->blocks_in * count * VALUE;
    for (int64_t tile = 0; tile < count; tile++) {
        Corner at = corner_of(f, first + tile);
        for (int64_t block = 0; block < f->blocks_in; block++) {
            floats half_way[POINTS][POINTS];
            for (int column = 0; column < POINTS; column++) {
                floats d[POINTS], t[POINTS];
                int64_t x = at.column + column - 1;
#pragma GCC unroll 6
                for (int i = 0; i < POINTS; i++) {
                    int64_t y = at.row + i - 1;
                    int inside = y >= 0 && y < f->height && x >= 0 && x < f->width;
                    int64_t place = ((at.image * f->height + y) * f->width + x) * f->x_stride + LANES * block;
                    d[i] = inside ? load(f->x, place, LANES, HALF) : (floats){0};
                }
                input_line(POINTS, d, t);
#pragma GCC unroll 6
                for (int i = 0; i < POINTS; i++) half_way[i][column] = t[i];
            }
            char* out = room + (block * count + tile) * VALUE;
            for (int i = 0; i < POINTS; i++) {
                floats t[POINTS];
                input_line(POINTS, half_way[i], t);
#pragma GCC unroll 6
                for (int j = 0; j < POINTS; j++) store(out + (i * POINTS + j) * apart, 0, LANES, HALF, t[j]);
            }
        }
    }
}

static void multiply(const Filtered* f, int64_t count, const char* room, char* sums) {
    int64_t matrix = f->blocks_in * LANES * VALUE, parts = (count + COLUMNS - 1) / COLUMNS;
    Operation product = product_over(f->blocks_in, count, VALUE);
    for (int64_t position = 0; position < POSITIONS; position++)
        for (int64_t block = 0; block < f->blocks_out; block += 2)
            for (int64_t part = 0; part < parts; part++) {
                int64_t tile = part * count / parts, next = (part + 1) * count / parts;
                products[0][next - tile - 1][f->blocks_out - block >= 2][0](
                    &product, room + (position * f->blocks_in * count + tile) * VALUE,
                    f->kernel + (position * f->blocks_out + block) * matrix, 0,
                    sums + ((position * f->blocks_out + block) * count + tile) * 64, 0);
            }
}

static void transform_output(const Filtered* f, int64_t first, int64_t count, const char* sums) {
    int64_t apart = f->blocks_out * count * 64;
    for (int64_t tile = 0; tile < count; tile++) {
        Corner at = corner_of(f, first + tile);
        for (int64_t block = 0; block < f->blocks_out; block++) {
            const char* in = sums + (block * count + tile) * 64;
            floats half_way[OUTPUTS][POINTS];
            for (int column = 0; column < POINTS; column++) {
                floats m[POINTS], y[OUTPUTS];
#pragma GCC unroll 6
                for (int i = 0; i < POINTS; i++)
                    m[i] = load_floats((const float*)(in + (i * POINTS + column) * apart), 0, LANES);
                output_line(POINTS, OUTPUTS, m, y);
#pragma GCC unroll 4
                for (int i = 0; i < OUTPUTS; i++) half_way[i][column] = y[i];
            }
            for (int i = 0; i < OUTPUTS && at.row + i < f->height; i++) {
                floats y[OUTPUTS];
                output_line(POINTS, OUTPUTS, half_way[i], y);
                int64_t line = (at.image * f->height + at.row + i) * f->width + at.column;
#pragma GCC unroll 4
                for (int j = 0; j < OUTPUTS; j++)
                    if (at.column + j < f->width)
                        store(f->y, (line + j) * f->blocks_out * LANES + LANES * block, LANES, HALF, y[j]);
            }
        }
    }
}

/* 16 outputs of one input's kernel, transformed. */
static void transform_kernel(const float* weights, const int64_t* strides, floats* found) {
    floats half_way[POINTS][3];
    for (int column = 0; column < 3; column++) {
        floats w[3];
        for (int row = 0; row < 3; row++)
            for (int lane = 0; lane < LANES; lane++)
                w[row][lane] = weights[lane * strides[0] + row * strides[2] + column * strides[3]];
        floats t[POINTS];
        kernel_line(POINTS, w, t);
        for (int i = 0; i < POINTS; i++) half_way[i][column] = t[i];
    }
    for (int i = 0; i < POINTS; i++) kernel_line(POINTS, half_way[i], found + i * POINTS);
}

static void transform_kernels(const float* weights, const int64_t* strides, int64_t blocks_in,
                              int64_t blocks_out, char* out, int threads) {
    int64_t inputs = blocks_in * LANES, step = HALF ? 2 : 1;
#pragma omp parallel for num_threads(threads) collapse(2)
    for (int64_t block = 0; block < blocks_out; block++)
        for (int64_t input = 0; input < inputs; input += step) {
            floats found[2][POSITIONS];
            for (int64_t i = 0; i < step; i++)
                transform_kernel(weights + block * LANES * strides[0] + (input + i) * strides[1], strides,
                                 found[i]);
            int64_t pair = block & ~1LL, vectors = blocks_out - pair >= 2 ? 2 : 1;
            for (int64_t position = 0; position < POSITIONS; position++) {
                char* to = out + (position * blocks_out + pair) * inputs * VALUE +
                           ((input / step) * vectors + (block - pair)) * 64;
                if (HALF) {
                    words even = (words)widened(rounded(found[0][position])) >> 16;
                    words both = even | (words)widened(rounded(found[1][position]));
                    memcpy(to, &both, sizeof both);
                } else {
                    memcpy(to, &found[0][position], sizeof(floats));
                }
            }
        }
}

/* y = 3x3 convolution of x: sizes are images, height, width, channels in, channels out; strides of the
   float32 weights are elements from output to output, input to input, row to row, column to column, and may
   be negative. Returns 1 where there is no memory. */
int NAME(const void* x, int64_t x_stride, const float* weights, const int64_t* strides, const int64_t* sizes,
         void* y, int threads) {
    Filtered f = {.x = x,
                  .y = y,
                  .x_stride = x_stride,
                  .images = sizes[0],
                  .height = sizes[1],
                  .width = sizes[2],
                  .blocks_in = sizes[3] / LANES,
                  .blocks_out = sizes[4] / LANES,
                  .down = (sizes[1] + OUTPUTS - 1) / OUTPUTS,
                  .across = (sizes[2] + OUTPUTS - 1) / OUTPUTS};
    int64_t tile_bytes = POSITIONS * (f.blocks_in * VALUE + f.blocks_out * 64),
            tiles = f.images * f.down * f.across;
    int64_t together = ROOM / tile_bytes / COLUMNS * COLUMNS;
    if (together < COLUMNS) together = COLUMNS;
    if (together > tiles) together = tiles;
    int64_t kernel_bytes = POSITIONS * f.blocks_in * LANES * f.blocks_out * VALUE;
    int64_t room_bytes = (together * tile_bytes + 63) / 64 * 64;
    char* memory = aligned_alloc(64, (kernel_bytes + threads * room_bytes + 63) / 64 * 64);
    if (!memory) return 1;
    f.kernel = memory;
    transform_kernels(weights, strides, f.blocks_in, f.blocks_out, memory, threads);
    int64_t portions = (tiles + together - 1) / together;
#pragma omp parallel num_threads(threads)
    {
        char* room = memory + kernel_bytes + omp_get_thread_num() * room_bytes;
        char* sums = room + POSITIONS * f.blocks_in * together * VALUE;
#pragma omp for schedule(static)
        for (int64_t portion = 0; portion < portions; portion++) {
            int64_t first = portion * tiles / portions, count = (portion + 1) * tiles / portions - first;
            transform_input(&f, first, count, room);
            multiply(&f, count, room, sums);
            transform_output(&f, first, count, sums);
        }
    }
    free(memory);
    return 0;
}
