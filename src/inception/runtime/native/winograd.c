/* Convolutions of stride 1 by minimal filtering: fewer products, after Winograd.

   Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, arXiv:1509.09308, section 4. The input
   is cut into overlapping tiles; in each direction `points` values give `size` outputs, points = size +
   kernel - 1, or 1 of 1 where the kernel has one row or column. Transforms work on 16 channels at once. In
   between, each position of a tile is a product of matrices: tiles x channels_in, channels_in x channels_out.
   The kernels come transformed. Maps of bfloat16 may be multiplied as float32 (`narrow` is 0), because the
   transforms of the larger tiles enlarge the rounding. */

#include "winograd.h"

#include "engine.h"

/* Some tiles, counted through all images, and the room for them before and after the products. */
typedef struct {
    int64_t first, count;
    char *transformed, *products;
} Portion;

/* Where a tile lies: image, first row and first column of its outputs. */
typedef struct {
    int64_t image, row, column;
} Place;

static Place place_of(const Operation* o, int64_t tile) {
    int64_t each = o->tile_rows * o->tile_columns, within = tile % each;
    return (Place){tile / each, within / o->tile_columns * o->size_rows,
                   within % o->tile_columns * o->size_columns};
}

INLINE void transform_input(int rows, int columns, int half, int narrow, const Run* run,
                            const Portion* portion, int64_t block) {
    const Operation* o = run->operation;
    int64_t pixel = half ? 32 : 64, value = narrow ? 32 : 64, apart = o->blocks_in * portion->count * value;
    for (int64_t tile = 0; tile < portion->count; tile++) {
        Place place = place_of(o, portion->first + tile);
        const char* in = run->arena + o->in + place.image * o->in_image + block * o->in_block +
                         place.row * o->in_row + place.column * pixel;
        floats half_way[MOST_POINTS][MOST_POINTS];
        for (int column = 0; column < columns; column++) {
            floats d[MOST_POINTS], t[MOST_POINTS];
#pragma GCC unroll 10
            for (int i = 0; i < rows; i++) d[i] = load(in + i * o->in_row, LANES * column, LANES, half);
            input_line(rows, d, t);
#pragma GCC unroll 10
            for (int i = 0; i < rows; i++) half_way[i][column] = t[i];
        }
        char* out = portion->transformed + (block * portion->count + tile) * value;
        for (int i = 0; i < rows; i++) {
            floats t[MOST_POINTS];
            input_line(columns, half_way[i], t);
#pragma GCC unroll 10
            for (int j = 0; j < columns; j++) store(out + (i * columns + j) * apart, 0, LANES, narrow, t[j]);
        }
    }
}

INLINE void transform_output(int rows, int columns, int height, int width, int half, const Run* run,
                             const Portion* portion, int64_t block) {
    const Operation* o = run->operation;
    int64_t pixel = half ? 32 : 64, apart = o->blocks_out * portion->count * 64;
    floats bias = load_floats((const float*)(run->weights + o->bias), LANES * block, LANES);
    for (int64_t tile = 0; tile < portion->count; tile++) {
        Place place = place_of(o, portion->first + tile);
        const char* in = portion->products + (block * portion->count + tile) * 64;
        floats half_way[4][MOST_POINTS];
        for (int column = 0; column < columns; column++) {
            floats m[MOST_POINTS], y[4];
#pragma GCC unroll 10
            for (int i = 0; i < rows; i++)
                m[i] = load_floats((const float*)(in + (i * columns + column) * apart), 0, LANES);
            output_line(rows, height, m, y);
#pragma GCC unroll 4
            for (int i = 0; i < height; i++) half_way[i][column] = y[i];
        }
        char* out = run->arena + o->out + place.image * o->out_image + block * o->out_block +
                    place.row * o->out_row + place.column * pixel;
        int64_t rows_left = o->height_out - place.row, columns_left = o->width_out - place.column;
        for (int i = 0; i < height && i < rows_left; i++) {
            floats y[4];
            output_line(columns, width, half_way[i], y);
#pragma GCC unroll 4
            for (int j = 0; j < width; j++) {
                floats sum = y[j] + bias;
                if (o->relu) sum = positive(sum);
                if (j < columns_left) store(out + i * o->out_row, LANES * j, LANES, half, sum);
            }
        }
    }
}

/* The cases: points and outputs of a tile, in rows and columns. */
#define CASES(make)                                                                                         \
    make(4, 4, 2, 2) make(6, 6, 4, 4) make(6, 6, 2, 2) make(1, 10, 1, 4) make(10, 1, 4, 1) make(1, 6, 1, 4) \
        make(6, 1, 4, 1) make(1, 4, 1, 2) make(4, 1, 2, 1)

#define DEFINE(rows, columns, height, width)                                                           \
    static void input_##rows##_##columns##_##height##_##width(const Run* run, const Portion* portion,  \
                                                              int64_t block) {                         \
        if (run->operation->narrow) transform_input(rows, columns, 1, 1, run, portion, block);         \
        else if (run->operation->half) transform_input(rows, columns, 1, 0, run, portion, block);      \
        else transform_input(rows, columns, 0, 0, run, portion, block);                                \
    }                                                                                                  \
    static void output_##rows##_##columns##_##height##_##width(const Run* run, const Portion* portion, \
                                                               int64_t block) {                        \
        int half = run->operation->half && !run->operation->wide;                                      \
        if (half) transform_output(rows, columns, height, width, 1, run, portion, block);              \
        else transform_output(rows, columns, height, width, 0, run, portion, block);                   \
    }
CASES(DEFINE)

typedef struct {
    int64_t rows, columns, height, width;
    void (*input)(const Run*, const Portion*, int64_t block);
    void (*output)(const Run*, const Portion*, int64_t block);
} Case;

#define ENTER(rows, columns, height, width)         \
    {rows,                                          \
     columns,                                       \
     height,                                        \
     width,                                         \
     input_##rows##_##columns##_##height##_##width, \
     output_##rows##_##columns##_##height##_##width},
static const Case cases[] = {CASES(ENTER)};

static const Case* case_of(const Operation* o) {
    const Case* found = cases;
    while (found->rows != o->points_rows || found->columns != o->points_columns ||
           found->height != o->size_rows || found->width != o->size_columns)
        found++;
    return found;
}

/* One position's product for one or two blocks of channels: a convolution of 1x1 over the tiles. */
static void multiply(const Run* run, const Portion* portion, int64_t position, int64_t block) {
    const Operation* o = run->operation;
    int64_t tiles = portion->count, value = o->narrow ? 32 : 64, vectors = o->blocks_out - block >= 2 ? 2 : 1;
    Operation product = product_over(o->blocks_in, tiles, value);
    const char* in = portion->transformed + position * o->blocks_in * tiles * value;
    char* out = portion->products + (position * o->blocks_out + block) * tiles * 64;
    int64_t matrix = o->blocks_in * LANES * value;
    const char* weights = run->weights + o->weights + (position * o->blocks_out + block) * matrix;
    int64_t parts = (tiles + COLUMNS - 1) / COLUMNS;
    for (int64_t part = 0; part < parts; part++) {
        int64_t tile = part * tiles / parts, next = (part + 1) * tiles / parts;
        tile_of(1, next - tile, vectors, value, o->narrow)(&product, in + tile * value, weights, 0,
                                                           out + tile * 64, 0);
    }
}

static int64_t all_tiles(const Operation* o) { return o->images * o->tile_rows * o->tile_columns; }

/* A share of the tiles from beginning to end, in the thread's own room. */
static void own_tiles(const Run* run, int64_t index, int64_t thread) {
    const Operation* o = run->operation;
    const Case* chosen = case_of(o);
    int64_t tiles = all_tiles(o), first = index * tiles / o->portions,
            end = (index + 1) * tiles / o->portions;
    char* room = run->arena + o->transformed + thread * o->room;
    Portion portion = {first, end - first, room, room + o->products};
    for (int64_t block = 0; block < o->blocks_in; block++) chosen->input(run, &portion, block);
    for (int64_t position = 0; position < o->points_rows * o->points_columns; position++)
        for (int64_t block = 0; block < o->blocks_out; block += 2) multiply(run, &portion, position, block);
    for (int64_t block = 0; block < o->blocks_out; block++) chosen->output(run, &portion, block);
}

static Portion everything(const Run* run) {
    const Operation* o = run->operation;
    char* room = run->arena + o->transformed;
    return (Portion){0, all_tiles(o), room, room + o->products};
}

static void input_block(const Run* run, int64_t index, int64_t thread) {
    Portion portion = everything(run);
    case_of(run->operation)->input(run, &portion, index);
}

static void product_job(const Run* run, int64_t index, int64_t thread) {
    int64_t positions = run->operation->points_rows * run->operation->points_columns;
    Portion portion = everything(run);
    multiply(run, &portion, index % positions, index / positions * 2);
}

static void output_block(const Run* run, int64_t index, int64_t thread) {
    Portion portion = everything(run);
    case_of(run->operation)->output(run, &portion, index);
}

/* Threads share the tiles; or, where the kernels are larger than the map, so that each should be read by one
   thread alone, the channels and positions. */
void winograd(Run* run) {
    const Operation* o = run->operation;
    if (o->by_rows) {
        parallel(run->pool, o->portions, own_tiles, run);
        return;
    }
    parallel(run->pool, o->blocks_in, input_block, run);
    parallel(run->pool, o->points_rows * o->points_columns * ((o->blocks_out + 1) / 2), product_job, run);
    parallel(run->pool, o->blocks_out, output_block, run);
}
