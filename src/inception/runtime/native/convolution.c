/* Convolutions by their definition, cut into tiles that threads share. */

#include "engine.h"

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
    int64_t rows = o->height_out - row < grid.rows ? 1 : grid.rows,
            vectors = o->blocks_out - block >= 2 ? 2 : 1;
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
        share = index % run->shares, image = index / run->shares % o->images,
        group = index / run->shares / o->images;
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
