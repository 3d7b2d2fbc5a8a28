/* The engine's operations and the threads that share them.

   A feature map lies in blocks of 16 channels: image, block, row, column, channel within the block. All
   places and strides are in bytes. Values are float32, or bfloat16 where `half` says so; sums are float32. A
   map may have a border of zeros, so that padding costs no test. */

#pragma once
#include "vectors.h"

enum { CONVOLUTION, WINOGRAD, MAX_POOL, AVERAGE_POOL, RESPONSE_NORM, PIXELS, BORDER };

typedef struct {
    int64_t kind, half;
    int64_t images, blocks_in, blocks_out, height_out, width_out;
    int64_t in, in_image, in_block, in_row;     /* the window of the first output, border included */
    int64_t out, out_image, out_block, out_row; /* the first output */
    int64_t other;                              /* a map laid out by `other_*` that is added; -1: none */
    int64_t other_image, other_block, other_row;
    int64_t kernel_rows, kernel_columns, stride_rows, stride_columns;
    int64_t column, depth;                  /* from one column of the kernel to the next; words in it */
    int64_t step;                           /* from one output's window to the next */
    int64_t weights, bias, relu, wide;      /* wide: the result is float32 although half */
    int64_t height_in, width_in, top, left; /* pools: the map without border, and the padding before it */
    int64_t bottom, right;                  /* border: its rows and columns, beside `top` and `left` */
    int64_t counted;                        /* average pool: padding counts as zeros */
    int64_t size;                           /* response norm: channels in a sum */
    int64_t points_rows, points_columns, size_rows, size_columns, narrow; /* Winograd: see winograd.c */
    int64_t transformed, products;                                        /* Winograd: room for both */
    int64_t tile_rows, tile_columns, portions,
        room;             /* Winograd: tiles of an image; shares of them; a thread's bytes */
    int64_t by_rows;      /* threads share the rows of the outputs, not their channels */
    int64_t channels;     /* pixels: of an image */
    int64_t square_root;  /* response norm: to the power of -1/2, not -3/4 */
    double alpha, offset; /* response norm: (offset + alpha sum)^-3/4 */
} Operation;

typedef struct Pool Pool;
typedef struct {
    const Operation* operation;
    char* arena;
    const char* weights;
    const uint8_t* pixels;
    Pool* pool;
    int64_t shares; /* set by a convolution: of an image's tiles */
} Run;
typedef void (*Job)(const Run* run, int64_t index, int64_t thread);

/* Jobs that follow each other are done by the same thread as far as possible: it has their data. */
void parallel(Pool* pool, int64_t jobs, Job job, const Run* run);
int64_t threads_of(const Pool* pool);

void convolution(Run* run);
void winograd(Run* run);
void pool_maximum(Run* run);
void pool_average(Run* run);
void response_norm(Run* run);
void read_pixels(Run* run);
void clear_border(Run* run);

/* Some outputs side by side, in one row or in two, of 1 or 2 blocks of channels. */
typedef void (*Tile)(const Operation* o, const char* in, const char* weights, const char* bias, char* out,
                     const char* other);
Tile tile_of_float32(int64_t rows, int64_t columns, int64_t vectors, int64_t step);
Tile tile_of_bfloat16(int64_t rows, int64_t columns, int64_t vectors, int64_t step);

INLINE Tile tile_of(int64_t rows, int64_t columns, int64_t vectors, int64_t step, int64_t half) {
    return half ? tile_of_bfloat16(rows, columns, vectors, step)
                : tile_of_float32(rows, columns, vectors, step);
}

/* The product of minimal filtering at one point, as a convolution of 1x1 over the tiles; 16 values of a tile
   have `value` bytes. */
INLINE Operation product_over(int64_t blocks_in, int64_t tiles, int64_t value) {
    return (Operation){.blocks_in = blocks_in,
                       .kernel_rows = 1,
                       .kernel_columns = 1,
                       .depth = value / 4,
                       .in_block = tiles * value,
                       .out_block = tiles * 64,
                       .wide = 1};
}

/* Outputs side by side in a tile, and registers that 16 numbers take. */
#if defined(__AVX512F__)
#define COLUMNS 14 /* 28 sums, 2 kernels and a pixel in 32 registers */
#define PARTS 1
#elif defined(__AVX__)
#define COLUMNS 6 /* 12 sums, 2 kernels and a pixel in 16 registers */
#define PARTS 2
#else
#define COLUMNS 6 /* 24 sums, 4 kernels and a pixel in 32 registers */
#define PARTS 4
#endif
