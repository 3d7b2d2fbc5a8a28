/* Batch normalisation with ReLU for training on CPUs, forward and backward.

   Sums over rows are continued in double, and made of a fixed number of pieces, so that results do not depend
   on the number of threads. */

#include <math.h>
#include <stdlib.h>

#include "vectors.h"

#define PIECES 64
#define TOGETHER 4
#define BLOCK_ROWS 128

/* What a piece needs to add up, and so apart from the others: 2 C doubles and 3 C floats. */
typedef struct {
    double* sums;
    float* lines;
} Workspace;

static void free_workspace(Workspace* space) {
    free(space->sums);
    free(space->lines);
}

/* Returns 0, with nothing to free, when memory is short. */
static int make_workspace(Workspace* space, int64_t channels) {
    space->sums = calloc(2 * PIECES * (size_t)channels, sizeof(double));
    space->lines = malloc(3 * PIECES * (size_t)channels * sizeof(float));
    if (space->sums && space->lines) return 1;
    free_workspace(space);
    return 0;
}

/* The first row of a piece; of piece PIECES the end of the last. */
INLINE int64_t edge(int64_t rows, int piece) { return rows * piece / PIECES; }

/* Calls `step(row, count)` for all rows: a few together, and what is left one by one. */
#define FOR_ROWS(first, last, step)                                            \
    do {                                                                       \
        int64_t row = first;                                                   \
        for (; row + TOGETHER <= (last); row += TOGETHER) step(row, TOGETHER); \
        for (; row < (last); row++) step(row, 1);                              \
    } while (0)

/* Adds to `sum` and `squares` what `count` rows differ from `origin`. */
INLINE void differences(const void* x, int64_t stride, int64_t row, int count, int64_t channels, int bfloat16,
                        const float* origin, float* sum, float* squares) {
#define STEP(column, lanes)                                                                    \
    do {                                                                                       \
        floats base = load_floats(origin, column, lanes), s = load_floats(sum, column, lanes); \
        floats q = load_floats(squares, column, lanes);                                        \
        for (int r = 0; r < count; r++) {                                                      \
            floats d = load(x, (row + r) * stride + column, lanes, bfloat16) - base;           \
            s += d;                                                                            \
            q += d * d;                                                                        \
        }                                                                                      \
        store(sum, column, lanes, 0, s);                                                       \
        store(squares, column, lanes, 0, q);                                                   \
    } while (0)
    FOR_COLUMNS(channels, LANES, STEP);
#undef STEP
}

/* Mean and sum of squared differences from it, for the rows of a piece. In every block its first row is
   subtracted, so that a large mean does not cancel the digits of the spread; `lines` holds 3 C floats. */
INLINE void spread_of_piece(const void* x, int64_t channels, int64_t stride, int64_t first, int64_t last,
                            int bfloat16, double* mean, double* spread, float* lines) {
    float *origin = lines, *sum = lines + channels, *squares = sum + channels;
    for (int64_t start = first; start < last; start += BLOCK_ROWS) {
        int64_t end = start + BLOCK_ROWS < last ? start + BLOCK_ROWS : last;
        memset(sum, 0, 2 * channels * sizeof(float));
#define STEP(column, lanes) store(origin, column, lanes, 0, load(x, start* stride + column, lanes, bfloat16))
        FOR_COLUMNS(channels, LANES, STEP);
#undef STEP
#define STEP(row, count) differences(x, stride, row, count, channels, bfloat16, origin, sum, squares)
        FOR_ROWS(start, end, STEP);
#undef STEP
        double seen = (double)(start - first), count = (double)(end - start), total = seen + count;
        for (int64_t channel = 0; channel < channels; channel++) {
            double s = sum[channel], apart = origin[channel] + s / count - mean[channel];
            mean[channel] += apart * (count / total);
            spread[channel] += squares[channel] - s * s / count + apart * apart * (seen * count / total);
        }
    }
}

INLINE floats normalised(floats x, floats scale, floats shift) { return x * scale + shift; }

INLINE void apply_to_rows(const void* x, int64_t stride, int64_t row, int count, int64_t channels,
                          int bfloat16, const float* scale, const float* shift, void* y) {
#define STEP(column, lanes)                                                                         \
    do {                                                                                            \
        floats a = load_floats(scale, column, lanes), b = load_floats(shift, column, lanes);        \
        for (int r = 0; r < count; r++) {                                                           \
            floats value = normalised(load(x, (row + r) * stride + column, lanes, bfloat16), a, b); \
            value = positive(value);                                                                \
            store(y, (row + r) * channels + column, lanes, bfloat16, value);                        \
        }                                                                                           \
    } while (0)
    FOR_COLUMNS(channels, LANES, STEP);
#undef STEP
}

INLINE void apply_to_piece(const void* x, int64_t channels, int64_t stride, int64_t first, int64_t last,
                           int bfloat16, const float* scale, const float* shift, void* y) {
#define STEP(row, count) apply_to_rows(x, stride, row, count, channels, bfloat16, scale, shift, y)
    FOR_ROWS(first, last, STEP);
#undef STEP
}

/* y = max(0, (x - mean) / sqrt(variance + eps) * weight + bias), with the statistics of these rows.

   state: 4 x C floats for the backward pass: scale, shift, mean, 1 / sqrt(variance + eps). running_mean,
   running_var: moved by `momentum` towards the mean and the unbiased variance. Returns 0, or 1 when memory is
   short. */
int norm_relu_forward(const void* x, int64_t rows, int64_t channels, int64_t stride, int bfloat16,
                      const float* weight, const float* bias, float* running_mean, float* running_var,
                      double momentum, double eps, void* y, float* state, int threads) {
    float *scale = state, *shift = state + channels, *mean = shift + channels, *inverse = mean + channels;
    Workspace space;
    if (!make_workspace(&space, channels)) return 1;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int piece = 0; piece < PIECES; piece++) {
        int64_t first = edge(rows, piece), last = edge(rows, piece + 1);
        double* own = space.sums + 2 * piece * channels;
        float* lines = space.lines + 3 * piece * channels;
        if (bfloat16) spread_of_piece(x, channels, stride, first, last, 1, own, own + channels, lines);
        else spread_of_piece(x, channels, stride, first, last, 0, own, own + channels, lines);
    }
    for (int64_t channel = 0; channel < channels; channel++) {
        double centre = 0.0, spread = 0.0, seen = 0.0;
        for (int piece = 0; piece < PIECES; piece++) {
            double count = (double)(edge(rows, piece + 1) - edge(rows, piece));
            if (count == 0.0) continue;
            double apart = space.sums[2 * piece * channels + channel] - centre, total = seen + count;
            centre += apart * (count / total);
            spread +=
                space.sums[(2 * piece + 1) * channels + channel] + apart * apart * (seen * count / total);
            seen = total;
        }
        inverse[channel] = (float)(1.0 / sqrt(spread / seen + eps));
        scale[channel] = weight[channel] * inverse[channel];
        shift[channel] = (float)(bias[channel] - centre * scale[channel]);
        mean[channel] = (float)centre;
        running_mean[channel] += (float)(momentum * (centre - running_mean[channel]));
        running_var[channel] += (float)(momentum * (spread / (seen - 1.0) - running_var[channel]));
    }
    free_workspace(&space);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int piece = 0; piece < PIECES; piece++) {
        int64_t first = edge(rows, piece), last = edge(rows, piece + 1);
        if (bfloat16) apply_to_piece(x, channels, stride, first, last, 1, scale, shift, y);
        else apply_to_piece(x, channels, stride, first, last, 0, scale, shift, y);
    }
    return 0;
}

/* The gradient where ReLU let the value through, else 0. */
INLINE floats passed(floats gradient, floats x, floats scale, floats shift) {
    return choose(normalised(x, scale, shift) <= 0.0f, (floats){0}, gradient);
}

INLINE void gradient_sums_of_rows(const void* gradient, int64_t gradient_stride, const void* x,
                                  int64_t stride, int64_t row, int count, int64_t channels, int bfloat16,
                                  const float* scale, const float* shift, const float* mean, float* sum,
                                  float* with_x) {
#define STEP(column, lanes)                                                                   \
    do {                                                                                      \
        floats a = load_floats(scale, column, lanes), b = load_floats(shift, column, lanes);  \
        floats m = load_floats(mean, column, lanes);                                          \
        floats s = load_floats(sum, column, lanes), p = load_floats(with_x, column, lanes);   \
        for (int r = 0; r < count; r++) {                                                     \
            floats value = load(x, (row + r) * stride + column, lanes, bfloat16);             \
            floats g = load(gradient, (row + r) * gradient_stride + column, lanes, bfloat16); \
            g = passed(g, value, a, b);                                                       \
            s += g;                                                                           \
            p += g * (value - m);                                                             \
        }                                                                                     \
        store(sum, column, lanes, 0, s);                                                      \
        store(with_x, column, lanes, 0, p);                                                   \
    } while (0)
    FOR_COLUMNS(channels, LANES, STEP);
#undef STEP
}

/* Sums of the passed gradient, and of it times (x - mean), over the rows of a piece; `lines` holds 2 C
 * floats. */
INLINE void gradient_sums_of_piece(const void* gradient, int64_t gradient_stride, const void* x,
                                   int64_t stride, int64_t channels, int64_t first, int64_t last,
                                   int bfloat16, const float* scale, const float* shift, const float* mean,
                                   double* total, double* product, float* lines) {
    float *sum = lines, *with_x = lines + channels;
    for (int64_t start = first; start < last; start += BLOCK_ROWS) {
        int64_t end = start + BLOCK_ROWS < last ? start + BLOCK_ROWS : last;
        memset(lines, 0, 2 * channels * sizeof(float));
#define STEP(row, count)                                                                               \
    gradient_sums_of_rows(gradient, gradient_stride, x, stride, row, count, channels, bfloat16, scale, \
                          shift, mean, sum, with_x)
        FOR_ROWS(start, end, STEP);
#undef STEP
        for (int64_t channel = 0; channel < channels; channel++) {
            total[channel] += sum[channel];
            product[channel] += with_x[channel];
        }
    }
}

/* The gradient of x is straight in the passed gradient and in x: a g + b x + c, by channel. */
INLINE void gradient_of_rows(const void* gradient, int64_t gradient_stride, const void* x, int64_t stride,
                             int64_t row, int count, int64_t channels, int bfloat16, const float* scale,
                             const float* shift, const float* slope, const float* constant, void* result) {
#define STEP(column, lanes)                                                                     \
    do {                                                                                        \
        floats a = load_floats(scale, column, lanes), b = load_floats(shift, column, lanes);    \
        floats c = load_floats(slope, column, lanes), d = load_floats(constant, column, lanes); \
        for (int r = 0; r < count; r++) {                                                       \
            floats value = load(x, (row + r) * stride + column, lanes, bfloat16);               \
            floats g = load(gradient, (row + r) * gradient_stride + column, lanes, bfloat16);   \
            store(result, (row + r) * stride + column, lanes, bfloat16,                         \
                  a * passed(g, value, a, b) + (c * value + d));                                \
        }                                                                                       \
    } while (0)
    FOR_COLUMNS(channels, LANES, STEP);
#undef STEP
}

INLINE void gradient_of_piece(const void* gradient, int64_t gradient_stride, const void* x, int64_t stride,
                              int64_t channels, int64_t first, int64_t last, int bfloat16, const float* scale,
                              const float* shift, const float* slope, const float* constant, void* result) {
#define STEP(row, count)                                                                                 \
    gradient_of_rows(gradient, gradient_stride, x, stride, row, count, channels, bfloat16, scale, shift, \
                     slope, constant, result)
    FOR_ROWS(first, last, STEP);
#undef STEP
}

/* Gradients of x (`stride` elements from row to row, like x), weight and bias; state is the forward pass's.
   Returns 0, or 1 when memory is short. */
int norm_relu_backward(const void* gradient, int64_t gradient_stride, const void* x, int64_t rows,
                       int64_t channels, int64_t stride, int bfloat16, const float* state, void* x_gradient,
                       float* weight_gradient, float* bias_gradient, int threads) {
    const float *scale = state, *shift = state + channels, *mean = shift + channels,
                *inverse = mean + channels;
    Workspace space;
    if (!make_workspace(&space, channels)) return 1;
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int piece = 0; piece < PIECES; piece++) {
        int64_t first = edge(rows, piece), last = edge(rows, piece + 1);
        double *total = space.sums + 2 * piece * channels, *product = total + channels;
        float* lines = space.lines + 3 * piece * channels;
        if (bfloat16)
            gradient_sums_of_piece(gradient, gradient_stride, x, stride, channels, first, last, 1, scale,
                                   shift, mean, total, product, lines);
        else
            gradient_sums_of_piece(gradient, gradient_stride, x, stride, channels, first, last, 0, scale,
                                   shift, mean, total, product, lines);
    }
    float *slope = space.lines, *constant = slope + channels;
    for (int64_t channel = 0; channel < channels; channel++) {
        double total = 0.0, product = 0.0;
        for (int piece = 0; piece < PIECES; piece++) {
            total += space.sums[2 * piece * channels + channel];
            product += space.sums[(2 * piece + 1) * channels + channel];
        }
        double tilt = -(double)scale[channel] * inverse[channel] * inverse[channel] * product / (double)rows;
        slope[channel] = (float)tilt;
        constant[channel] = (float)(-scale[channel] * total / (double)rows - tilt * mean[channel]);
        weight_gradient[channel] = (float)(product * inverse[channel]);
        bias_gradient[channel] = (float)total;
    }
#pragma omp parallel for num_threads(threads) schedule(static)
    for (int piece = 0; piece < PIECES; piece++) {
        int64_t first = edge(rows, piece), last = edge(rows, piece + 1);
        if (bfloat16)
            gradient_of_piece(gradient, gradient_stride, x, stride, channels, first, last, 1, scale, shift,
                              slope, constant, x_gradient);
        else
            gradient_of_piece(gradient, gradient_stride, x, stride, channels, first, last, 0, scale, shift,
                              slope, constant, x_gradient);
    }
    free_workspace(&space);
    return 0;
}
