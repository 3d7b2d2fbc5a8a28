/* Convolutions of 3x3, stride 1, by the minimal filtering of Winograd: F(2x2, 3x3) and F(4x4, 3x3).

   Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, arXiv:1509.09308, section 4. The input
   is cut into overlapping tiles of n x n, n = outputs + 2; both transforms work on 16 channels at once. In
   between, each of the n x n positions is a product of matrices: tiles x channels_in, channels_in x
   channels_out. The kernels come transformed. Maps of bfloat16 are multiplied as bfloat16 in the smaller tiles,
   and as float32 in the larger, whose transforms would make too much of the rounding. */

#include "engine.h"

INLINE void input_line(int n, const floats d[6], floats t[6]) { /* B^T d */
    if (n == 4) {
        t[0] = d[0] - d[2];
        t[1] = d[1] + d[2];
        t[2] = d[2] - d[1];
        t[3] = d[1] - d[3];
    } else {
        floats a = d[4] - 4 * d[2], b = d[3] - 4 * d[1], c = d[4] - d[2], e = 2 * (d[3] - d[1]);
        t[0] = 4 * d[0] - 5 * d[2] + d[4];
        t[1] = a + b;
        t[2] = a - b;
        t[3] = c + e;
        t[4] = c - e;
        t[5] = 4 * d[1] - 5 * d[3] + d[5];
    }
}

INLINE void output_line(int n, const floats m[6], floats y[4]) { /* A^T m */
    if (n == 4) {
        y[0] = m[0] + m[1] + m[2];
        y[1] = m[1] - m[2] - m[3];
    } else {
        floats a = m[1] + m[2], b = m[1] - m[2], c = m[3] + m[4], d = m[3] - m[4];
        y[0] = m[0] + a + c;
        y[1] = b + 2 * d;
        y[2] = a + 4 * c;
        y[3] = b + 8 * d + m[5];
    }
}

/* A portion is so many rows of tiles, counted through all images. */
static int64_t rows_in_portion(const Run* run) {
    const Operation* o = run->operation;
    int64_t left = o->images * o->tile_rows - run->first;
    return left < o->portion ? left : o->portion;
}

static int64_t tiles_in_portion(const Run* run) { return rows_in_portion(run) * run->operation->tile_columns; }

/* Where a row of tiles of the portion lies: image and first row of its outputs. */
typedef struct {
    int64_t image, row;
} Place;

static Place place_of(const Run* run, int64_t row) {
    const Operation* o = run->operation;
    return (Place){(run->first + row) / o->tile_rows, (run->first + row) % o->tile_rows * o->size};
}

INLINE void transform_input(int n, int half, const Run* run, int64_t block, int64_t row) {
    const Operation* o = run->operation;
    int64_t tiles = tiles_in_portion(run), pixel = half ? 32 : 64, value = half && n == 4 ? 32 : 64;
    Place place = place_of(run, row);
    for (int64_t column_of_tiles = 0; column_of_tiles < o->tile_columns; column_of_tiles++) {
        int64_t index = row * o->tile_columns + column_of_tiles, from = column_of_tiles * o->size;
        const char* in = run->arena + o->in + place.image * o->in_image + block * o->in_block +
                         place.row * o->in_row + from * pixel;
        floats half_way[6][6];
        for (int column = 0; column < n; column++) {
            floats d[6], t[6];
#pragma GCC unroll 6
            for (int i = 0; i < n; i++) d[i] = load(in + i * o->in_row, LANES * column, LANES, half);
            input_line(n, d, t);
#pragma GCC unroll 6
            for (int i = 0; i < n; i++) half_way[i][column] = t[i];
        }
        char* out = run->arena + o->transformed + (block * tiles + index) * value;
        int64_t apart = o->blocks_in * tiles * value;
        for (int i = 0; i < n; i++) {
            floats t[6];
            input_line(n, half_way[i], t);
#pragma GCC unroll 6
            for (int j = 0; j < n; j++) store(out + (i * n + j) * apart, 0, LANES, value == 32, t[j]);
        }
    }
}

INLINE void transform_output(int n, int half, const Run* run, int64_t block, int64_t row) {
    const Operation* o = run->operation;
    int64_t tiles = tiles_in_portion(run), size = n - 2, pixel = half ? 32 : 64;
    floats bias = load_floats((const float*)(run->weights + o->bias), LANES * block, LANES);
    Place place = place_of(run, row);
    for (int64_t column_of_tiles = 0; column_of_tiles < o->tile_columns; column_of_tiles++) {
        int64_t index = row * o->tile_columns + column_of_tiles, from = column_of_tiles * o->size;
        const char* in = run->arena + o->products + (block * tiles + index) * 64;
        int64_t apart = o->blocks_out * tiles * 64;
        floats half_way[4][6];
        for (int column = 0; column < n; column++) {
            floats m[6], y[4];
#pragma GCC unroll 6
            for (int i = 0; i < n; i++) m[i] = *(const floats*)(in + (i * n + column) * apart);
            output_line(n, m, y);
#pragma GCC unroll 4
            for (int i = 0; i < size; i++) half_way[i][column] = y[i];
        }
        char* out = run->arena + o->out + place.image * o->out_image + block * o->out_block +
                    place.row * o->out_row + from * pixel;
        int64_t height = o->height_out - place.row, width = o->width_out - from;
        for (int i = 0; i < size && i < height; i++) {
            floats y[4];
            output_line(n, half_way[i], y);
#pragma GCC unroll 4
            for (int j = 0; j < size; j++) {
                floats sum = y[j] + bias;
                if (o->relu) sum = positive(sum);
                if (j < width) store(out + i * o->out_row, LANES * j, LANES, half, sum);
            }
        }
    }
}

#define EACH_CASE(step)                                             \
    do {                                                            \
        int64_t rows = rows_in_portion(run);                        \
        int half = (int)run->operation->half;                       \
        if (run->operation->size == 2 && half)                      \
            step(4, 1, run, index / rows, index % rows);            \
        else if (run->operation->size == 2)                         \
            step(4, 0, run, index / rows, index % rows);            \
        else if (half)                                              \
            step(6, 1, run, index / rows, index % rows);            \
        else                                                        \
            step(6, 0, run, index / rows, index % rows);            \
    } while (0)

static void input_job(const Run* run, int64_t index) { EACH_CASE(transform_input); }
static void output_job(const Run* run, int64_t index) { EACH_CASE(transform_output); }

/* One position's product for one or two blocks of channels: a convolution of 1x1 over the tiles. */
static void product_job(const Run* run, int64_t index) {
    const Operation* o = run->operation;
    int64_t tiles = tiles_in_portion(run), groups = (o->blocks_out + 1) / 2;
    int64_t position = index / groups, block = index % groups * 2, vectors = o->blocks_out - block >= 2 ? 2 : 1;
    int64_t half = o->half && o->size == 2, value = half ? 32 : 64;
    Operation product = {.blocks_in = o->blocks_in, .kernel_rows = 1, .kernel_columns = 1, .depth = value / 4,
                         .in_block = tiles * value, .out_block = tiles * 64, .wide = 1};
    const char* in = run->arena + o->transformed + position * o->blocks_in * tiles * value;
    char* out = run->arena + o->products + (position * o->blocks_out + block) * tiles * 64;
    int64_t matrix = o->blocks_in * LANES * value;
    const char* weights = run->weights + o->weights + (position * o->blocks_out + block) * matrix;
    int64_t parts = (tiles + COLUMNS - 1) / COLUMNS;
    for (int64_t part = 0; part < parts; part++) {
        int64_t tile = part * tiles / parts, next = (part + 1) * tiles / parts;
        tile_of(1, next - tile, vectors, value, half)(&product, in + tile * value, weights, 0, out + tile * 64, 0);
    }
}

void winograd(Run* run) {
    const Operation* o = run->operation;
    int64_t positions = (o->size + 2) * (o->size + 2);
    for (run->first = 0; run->first < o->images * o->tile_rows; run->first += o->portion) {
        parallel(run->pool, o->blocks_in * rows_in_portion(run), input_job, run);
        parallel(run->pool, positions * ((o->blocks_out + 1) / 2), product_job, run);
        parallel(run->pool, o->blocks_out * rows_in_portion(run), output_job, run);
    }
}
