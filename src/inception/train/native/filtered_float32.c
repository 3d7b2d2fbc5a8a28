/* Filtered convolution in float32: tiles of 4x4 outputs. */

#define HALF 0
#define POINTS 6
#define NAME filtered_float32
#define STEPS(make, rows, columns, vectors) make(rows, columns, vectors, 64)
enum { INDEX_64 };
#include "filtered.h"
