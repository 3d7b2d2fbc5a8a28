/* Filtered convolution in bfloat16, where the processor has its products: tiles of 2x2 outputs, whose
   transforms hardly enlarge the rounding. Processors with AMX multiply many times faster than the products
   used here, in PyTorch's own convolutions. */

#include <stdint.h>

#define HALF 1
#define POINTS 4
#define NAME filtered_bfloat16
#define STEPS(make, rows, columns, vectors) make(rows, columns, vectors, 32)
enum { INDEX_32 };

#if defined(__AVX512BF16__) && !defined(__AMX_BF16__)
#include "filtered.h"

int has_filtered_bfloat16(void) { return 1; }
#else
int NAME(const void* x, int64_t x_stride, const float* weights, const int64_t* strides, const int64_t* sizes,
         void* y, int threads) {
    return 1;
}

int has_filtered_bfloat16(void) { return 0; }
#endif
