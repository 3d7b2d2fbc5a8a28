/* The tiles of convolutions in float32. */

#define HALF 0
#define STEPS(make, rows, columns, vectors) \
    make(rows, columns, vectors, 64) make(rows, columns, vectors, 128) make(rows, columns, vectors, 24)
#include "tile.h"

enum { INDEX_64, INDEX_128, INDEX_24, ALL_STEPS };
static const Tile tiles[2][COLUMNS][2][ALL_STEPS] = {SIZES(ENTER_SIZE)};

Tile tile_of_float32(int64_t rows, int64_t columns, int64_t vectors, int64_t step) {
    return tiles[rows - 1][columns - 1][vectors - 1][step == 64    ? INDEX_64
                                                     : step == 128 ? INDEX_128
                                                                   : INDEX_24];
}
