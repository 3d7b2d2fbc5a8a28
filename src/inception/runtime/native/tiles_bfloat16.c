/* The tiles of convolutions in bfloat16, where the processor has its products. */

#define HALF 1
#define STEPS(make, rows, columns, vectors) \
    make(rows, columns, vectors, 32) make(rows, columns, vectors, 64) make(rows, columns, vectors, 12)
#include "engine.h"

#ifdef __AVX512BF16__
#include "tile.h"

enum { INDEX_32, INDEX_64, INDEX_12, ALL_STEPS };
static const Tile tiles[2][COLUMNS][2][ALL_STEPS] = {SIZES(ENTER_SIZE)};

Tile tile_of_bfloat16(int64_t rows, int64_t columns, int64_t vectors, int64_t step) {
    return tiles[rows - 1][columns - 1][vectors - 1][step == 32   ? INDEX_32
                                                     : step == 64 ? INDEX_64
                                                                  : INDEX_12];
}

int engine_has_bfloat16(void) { return 1; }
#else
Tile tile_of_bfloat16(int64_t rows, int64_t columns, int64_t vectors, int64_t step) { return 0; }

int engine_has_bfloat16(void) { return 0; }
#endif
