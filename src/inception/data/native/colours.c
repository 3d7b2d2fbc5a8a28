/* Brightness, contrast and colour of a view of bytes, its channels one after another. Every step is that of
   NumPy in float32, so that both make the same bytes. */

#include <stdint.h>

/* Each channel's sum. */
void channel_sums(const uint8_t* view, int channels, int64_t count, int64_t* sums) {
    for (int c = 0; c < channels; c++) {
        int64_t sum = 0;
        for (int64_t start = 0; start < count; start += 1 << 20) { /* few enough for 32 bits */
            int64_t end = start + (1 << 20) < count ? start + (1 << 20) : count;
            uint32_t part = 0;
            for (int64_t i = start; i < end; i++) part += view[c * count + i];
            sum += part;
        }
        sums[c] = sum;
    }
}

static inline uint8_t to_byte(float value) {
    value = value < 0.0f ? 0.0f : value;
    return (uint8_t)(int32_t)(value > 255.0f ? 255.0f : value);
}

static void recolour_grey(uint8_t* restrict view, int64_t count, float keep, float blend, float add) {
    for (int64_t i = 0; i < count; i++) {
        float value = view[i];
        view[i] = to_byte(value * keep + (blend * value + add));
    }
}

static void recolour_rgb(uint8_t* restrict red, uint8_t* restrict green, uint8_t* restrict blue,
                         int64_t count, const float* weights, float keep, float blend, float add) {
    for (int64_t i = 0; i < count; i++) {
        float r = red[i], g = green[i], b = blue[i];
        float grey = r * weights[0] + weights[1] * g + weights[2] * b;
        float common = blend * grey + add;
        red[i] = to_byte(r * keep + common);
        green[i] = to_byte(g * keep + common);
        blue[i] = to_byte(b * keep + common);
    }
}

/* In place: keep * value + blend * grey + add, limited to 0..255 and rounded down; `change` holds these
   three, `weights` those of red, green and blue in grey. */
void recolour(uint8_t* view, int channels, int64_t count, const float* weights, const float* change) {
    if (channels == 1) recolour_grey(view, count, change[0], change[1], change[2]);
    else recolour_rgb(view, view + count, view + 2 * count, count, weights, change[0], change[1], change[2]);
}
