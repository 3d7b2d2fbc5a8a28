/* The transforms of minimal filtering along one line, after Winograd, Toom and Cook.

   Lavin and Gray, Fast Algorithms for Convolutional Neural Networks, arXiv:1509.09308, section 4. n values of
   the input give n - taps + 1 outputs; n is 4, 6 or 10, or 1 where nothing is filtered. */

#pragma once
#include "vectors.h"

#define MOST_POINTS 10

/* The points of Toom and Cook are 0, infinity and these, each with both signs, chosen for small errors among
   numbers that float32 holds exactly. With z = x^2 and a pair's square s, FACTORS are the coefficients of the
   product of z - s over all pairs but one, and WHOLE over all. */
static const float POINTS_4[] = {1}, POINTS_6[] = {0.75f, 1.5f}, POINTS_10[] = {0.5f, 0.75f, 1.25f, 2};
#define A 0.25f
#define B 0.5625f
#define C 1.5625f
#define D 4.0f
#define CUBIC(a, b, c) {-(a) * (b) * (c), (a) * (b) + (b) * (c) + (c) * (a), -((a) + (b) + (c)), 1}
static const float FACTORS_4[1][1] = {{1}}, WHOLE_4[] = {-1, 1};
static const float FACTORS_6[2][2] = {{-2.25f, 1}, {-0.5625f, 1}},
                   WHOLE_6[] = {2.25f * 0.5625f, -2.25f - 0.5625f, 1};
static const float FACTORS_10[4][4] = {CUBIC(B, C, D), CUBIC(A, C, D), CUBIC(A, B, D), CUBIC(A, B, C)};
static const float WHOLE_10[] = {A * B * C * D, -(A * B * C + A * B * D + A * C * D + B * C * D),
                                 A * B + A * C + A * D + B * C + B * D + C * D, -(A + B + C + D), 1};

#undef A
#undef B
#undef C
#undef D
#undef CUBIC

INLINE float point(int n, int pair) {
    return n == 4 ? POINTS_4[pair] : n == 6 ? POINTS_6[pair] : POINTS_10[pair];
}
INLINE float whole(int n, int k) { return n == 4 ? WHOLE_4[k] : n == 6 ? WHOLE_6[k] : WHOLE_10[k]; }
INLINE float factor(int n, int pair, int k) {
    return n == 4 ? FACTORS_4[pair][k] : n == 6 ? FACTORS_6[pair][k] : FACTORS_10[pair][k];
}

/* n values of the input at n points; those at a pair of points share their even and their odd half. */
INLINE void input_line(int n, const floats* d, floats* t) {
    const int pairs = (n - 2) / 2;
    t[0] = d[0];
    if (n == 1) return;
    floats zero = {0}, infinity = {0};
#pragma GCC unroll 6
    for (int k = 0; k <= pairs; k++) {
        zero += whole(n, k) * d[2 * k];
        infinity += whole(n, k) * d[2 * k + 1];
    }
    t[0] = zero;
    t[n - 1] = infinity;
#pragma GCC unroll 6
    for (int pair = 0; pair < pairs; pair++) {
        floats even = {0}, odd = {0};
#pragma GCC unroll 6
        for (int k = 0; k < pairs; k++) {
            even += factor(n, pair, k) * d[2 * k + 2];
            odd += factor(n, pair, k) * d[2 * k + 1];
        }
        t[1 + 2 * pair] = even + point(n, pair) * odd;
        t[2 + 2 * pair] = even - point(n, pair) * odd;
    }
}

/* 3 weights at n points, divided by the product of a point's distances from the others. */
INLINE void kernel_line(int n, const floats* w, floats* t) {
    const int pairs = (n - 2) / 2;
    t[0] = w[0] / whole(n, 0);
    t[n - 1] = w[2];
#pragma GCC unroll 6
    for (int pair = 0; pair < pairs; pair++) {
        float p = point(n, pair), square = p * p, distances = 0;
        for (int k = pairs - 1; k >= 0; k--) distances = distances * square + factor(n, pair, k);
        distances *= 2 * square;
        t[1 + 2 * pair] = (w[0] + square * w[2] + p * w[1]) / distances;
        t[2 + 2 * pair] = (w[0] + square * w[2] - p * w[1]) / distances;
    }
}

/* n products back to `size` outputs. */
INLINE void output_line(int n, int size, const floats* m, floats* y) {
    const int pairs = (n - 2) / 2;
    y[0] = m[0];
    if (n == 1) return;
#pragma GCC unroll 4
    for (int k = 1; k < size; k++) y[k] = (floats){0};
#pragma GCC unroll 6
    for (int pair = 0; pair < pairs; pair++) {
        floats sum = m[1 + 2 * pair] + m[2 + 2 * pair], difference = m[1 + 2 * pair] - m[2 + 2 * pair];
        float power = 1;
#pragma GCC unroll 4
        for (int k = 0; k < size; k++) {
            y[k] += power * (k % 2 ? difference : sum);
            power *= point(n, pair);
        }
    }
    y[size - 1] += m[n - 1];
}
