/* Pools, response norm, the reading of pixels and the clearing of borders. */

#include "engine.h"

static int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }
static int64_t most(int64_t a, int64_t b) { return a > b ? a : b; }

INLINE floats joined(int maximum, floats a, floats b) { return maximum ? greater(a, b) : a + b; }

#define MOST_COLUMNS 1024 /* of a map that is pooled (layers.py) */

/* All columns of the map, each joined over the rows of the window. */
INLINE void join_rows(int maximum, int half, const Operation* o, const char* in, int64_t rows,
                      floats* columns) {
    for (int64_t x = 0; x < o->width_in; x++) {
        floats found = load(in, LANES * x, LANES, half);
        for (int64_t y = 1; y < rows; y++)
            found = joined(maximum, found, load(in + y * o->in_row, LANES * x, LANES, half));
        columns[x] = found;
    }
}

/* A row of outputs of one block. Windows are joined first over their rows, then over their columns, cut at
   the edges of the map. */
INLINE void pooled_row(int maximum, int half, const Run* run, int64_t index) {
    const Operation* o = run->operation;
    int64_t block = index % o->blocks_out, image = index / o->blocks_out % o->images;
    int64_t row = index / o->blocks_out / o->images, size = half ? 32 : 64;
    int64_t y = row * o->stride_rows - o->top, top = most(y, 0),
            bottom = least(y + o->kernel_rows, o->height_in);
    const char* in = run->arena + o->in + image * o->in_image + block * o->in_block + top * o->in_row;
    char* out = run->arena + o->out + image * o->out_image + block * o->out_block + row * o->out_row;
    /* Padding counts in an average; what ceil_mode adds beyond it on the right and below does not. */
    int64_t counted = o->counted ? least(o->kernel_rows, o->height_in + o->counted - 1 - y) : bottom - top;
    floats columns[MOST_COLUMNS];
    join_rows(maximum, half, o, in, bottom - top, columns);
    for (int64_t column = 0; column < o->width_out; column++) {
        int64_t x = column * o->stride_columns - o->left, left = most(x, 0);
        int64_t right = least(x + o->kernel_columns, o->width_in);
        floats found = columns[left];
        for (int64_t at = left + 1; at < right; at++) found = joined(maximum, found, columns[at]);
        if (!maximum) {
            int64_t across =
                o->counted ? least(o->kernel_columns, o->width_in + o->counted - 1 - x) : right - left;
            found *= 1.0f / (float)(counted * across);
        }
        store(out + column * size, 0, LANES, half, found);
    }
}

static void maximum_row(const Run* run, int64_t index, int64_t thread) { pooled_row(1, 0, run, index); }
static void maximum_row_half(const Run* run, int64_t index, int64_t thread) { pooled_row(1, 1, run, index); }
static void average_row(const Run* run, int64_t index, int64_t thread) { pooled_row(0, 0, run, index); }
static void average_row_half(const Run* run, int64_t index, int64_t thread) { pooled_row(0, 1, run, index); }

static int64_t rows_of_outputs(const Operation* o) { return o->images * o->blocks_out * o->height_out; }

void pool_maximum(Run* run) {
    const Operation* o = run->operation;
    parallel(run->pool, rows_of_outputs(o), o->half ? maximum_row_half : maximum_row, run);
}

void pool_average(Run* run) {
    const Operation* o = run->operation;
    parallel(run->pool, rows_of_outputs(o), o->half ? average_row_half : average_row, run);
}

/* 1 / sqrt(x) of numbers that are positive. */
INLINE floats inverse_root(floats x) {
#ifdef __AVX512F__
    /* One step of Newton's takes the estimate of 14 bits to the precision of float32. */
    floats r = (floats)_mm512_rsqrt14_ps((__m512)x);
    return r * (1.5f - 0.5f * x * r * r);
#else
    return 1.0f / root(x);
#endif
}

INLINE floats power(floats x, int square_root) {
    floats r = inverse_root(x); /* x^-1/2, and sqrt of it x^-1/4 = r / sqrt(r) */
    return square_root ? r : r * (r * inverse_root(r));
}

#define MOST_CHANNELS 4096
#define MOST_SIZE 64

INLINE void normed_pixel(int half, const Operation* o, const char* in, char* out) {
    float squares[MOST_CHANNELS + 2 * MOST_SIZE];
    int64_t before = o->size / 2, channels = o->blocks_in * LANES;
    memset(squares, 0, before * sizeof *squares);
    memset(squares + before + channels, 0, before * sizeof *squares);
    for (int64_t block = 0; block < o->blocks_in; block++) {
        floats x = load(in + block * o->in_block, 0, LANES, half);
        x *= x;
        memcpy(squares + before + block * LANES, &x, sizeof x);
    }
    for (int64_t block = 0; block < o->blocks_in; block++) {
        floats sum = {0};
        for (int64_t near = 0; near < o->size; near++)
            sum += load_floats(squares, block * LANES + near, LANES);
        floats x = load(in + block * o->in_block, 0, LANES, half);
        x *= power((float)o->offset + (float)o->alpha * sum, (int)o->square_root);
        store(out + block * o->out_block, 0, LANES, half, x);
    }
}

static void normed_row(const Run* run, int64_t index, int64_t thread) {
    const Operation* o = run->operation;
    int64_t image = index % o->images, row = index / o->images;
    const char* in = run->arena + o->in + image * o->in_image + row * o->in_row;
    char* out = run->arena + o->out + image * o->out_image + row * o->out_row;
    for (int64_t column = 0; column < o->width_out; column++) {
        if (o->half) normed_pixel(1, o, in + 32 * column, out + 32 * column);
        else normed_pixel(0, o, in + 64 * column, out + 64 * column);
    }
}

void response_norm(Run* run) {
    const Operation* o = run->operation;
    parallel(run->pool, o->images * o->height_out, normed_row, run);
}

#define STRIP 256 /* pixels at a time */

/* Planes of bytes as interleaved numbers: image, row, column, `depth` values of which `channels` are used. */
static void pixel_row(const Run* run, int64_t index, int64_t thread) {
    const Operation* o = run->operation;
    int64_t image = index % o->images, row = index / o->images, plane = o->height_out * o->width_out;
    const uint8_t* in = run->pixels + image * o->channels * plane + row * o->width_out;
    const float* centers = o->bias < 0 ? 0 : (const float*)(run->weights + o->bias);
    char* out = run->arena + o->out + image * o->out_image + row * o->out_row;
    if (o->depth > o->channels) memset(out, 0, o->width_out * o->depth * (o->half ? 2 : 4));
    for (int64_t channel = 0; channel < o->channels; channel++) {
        float center = centers ? centers[channel] : 0;
        for (int64_t start = 0; start < o->width_out; start += STRIP) {
            int64_t count = least(STRIP, o->width_out - start), at = start * o->depth + channel;
            const uint8_t* from = in + channel * plane + start;
            float values[STRIP];
            uint16_t narrow[STRIP];
            for (int64_t i = 0; i < count; i++) values[i] = (float)from[i] - center;
            if (o->half) {
                for (int64_t i = 0; i < STRIP; i += LANES)
                    store(narrow, i, LANES, 1, load_floats(values, i, LANES));
                for (int64_t i = 0; i < count; i++) ((uint16_t*)out)[at + i * o->depth] = narrow[i];
            } else {
                for (int64_t i = 0; i < count; i++) ((float*)out)[at + i * o->depth] = values[i];
            }
        }
    }
}

void read_pixels(Run* run) {
    const Operation* o = run->operation;
    parallel(run->pool, o->images * o->height_out, pixel_row, run);
}

/* Zeros around a map whose memory others use too: rows above and below, columns before and after; a pixel
   has `step` bytes. A job is one block of one image. */
static void one_border(const Run* run, int64_t index, int64_t thread) {
    const Operation* o = run->operation;
    int64_t size = o->step, image = index / o->blocks_out, block = index % o->blocks_out;
    char* out = run->arena + o->out + image * o->out_image + block * o->out_block;
    memset(out - o->top * o->out_row - o->left * size, 0, o->top * o->out_row);
    memset(out + o->height_out * o->out_row - o->left * size, 0, o->bottom * o->out_row);
    for (int64_t row = 0; row < o->height_out; row++) {
        memset(out + row * o->out_row - o->left * size, 0, o->left * size);
        memset(out + row * o->out_row + o->width_out * size, 0, o->right * size);
    }
}

void clear_border(Run* run) {
    const Operation* o = run->operation;
    parallel(run->pool, o->images * o->blocks_out, one_border, run);
}
