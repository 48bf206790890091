/* Views of images on a CPU: an affine grid read bilinearly, one pass from stored bytes to float32.
 *
 * Loaded by warp.py through ctypes; as a Python module it is empty. Sampling is that of grid_sample with
 * reflection and align_corners=False: pixel centres lie at whole numbers, borders are mirrored at -0.5.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__GNUC__) && !defined(__clang__) && defined(__linux__) && defined(__x86_64__)
#define CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define CLONES
#endif
#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

/* Four floats at once: a pixel of three channels and one number more, which is written over by the next. */
#if defined(__GNUC__)
typedef float four __attribute__((vector_size(16)));
static inline four all(float x) { return (four){x, x, x, x}; }
typedef int32_t mask __attribute__((vector_size(16)));
static inline four clipped(four x) { /* to [0, 1] */
    mask positive = x > all(0), large = x > all(1);
    return (four)((((mask)x & ~large) | ((mask)all(1) & large)) & positive);
}
#define HAS_FOUR 1
static inline four load4(const float *from) {
    four x;
    memcpy(&x, from, sizeof(x));
    return x;
}
static inline void store4(float *to, four x) { memcpy(to, &x, sizeof(x)); }
static inline void store3(float *to, four x) { memcpy(to, &x, 3 * sizeof(float)); }
#endif

/* A coordinate as grid_sample's reflection leaves it, within [0, n - 1]. */
static inline float mirrored(float x, int n) {
    float span = (float)n;
    float y = fabsf(x + 0.5f);
    float turns = floorf(y / span);
    float rest = y - turns * span;
    y = (turns - 2 * floorf(turns / 2) == 0 ? rest : span - rest) - 0.5f;
    y = y < 0 ? 0 : y;
    return y > span - 1 ? span - 1 : y;
}

/* first[i], first[i] + 1 (or itself at the border) and the weight of the second, for a line of n coordinates. */
static void taps(float start, float step, int count, int n, int c, int32_t *low, int32_t *high, float *weight) {
    for (int i = 0; i < count; i++) {
        float x = mirrored(start + step * (float)i, n);
        int32_t first = (int32_t)x;
        int32_t second = first + 1 < n ? first + 1 : first;
        weight[i] = x - (float)first;
        low[i] = first * c;
        high[i] = second * c;
    }
}

/* line[j] = (1 - w) upper[j] + w lower[j] over whole stored rows. */
CLONES static void blend_u8(const uint8_t *upper, const uint8_t *lower, float w, float *line, int64_t count) {
    for (int64_t j = 0; j < count; j++) {
        float a = (float)upper[j];
        line[j] = a + w * ((float)lower[j] - a);
    }
}

CLONES static void blend_u16(const uint16_t *upper, const uint16_t *lower, float w, float *line, int64_t count) {
    for (int64_t j = 0; j < count; j++) {
        float a = (float)upper[j];
        line[j] = a + w * ((float)lower[j] - a);
    }
}

/* out[k] = line[low[k]] + weight[k] (line[high[k]] - line[low[k]]), k over columns and channels. */
CLONES static void across(const float *line, const int32_t *low, const int32_t *high, const float *weight,
                          float scale, float *out, int64_t count) {
    for (int64_t k = 0; k < count; k++) {
        float a = line[low[k]], y = scale * (a + weight[k] * (line[high[k]] - a));
        out[k] = y > 1 ? 1 : y;
    }
}

CLONES static void along(const float *line, float scale, float *out, int64_t count) {
    for (int64_t k = 0; k < count; k++) {
        float y = scale * line[k];
        out[k] = y > 1 ? 1 : y;
    }
}

#ifdef HAS_FOUR
/* Every pixel of a view of three channels becomes own @ x + offset, within [0, 1]. */
CLONES static void mix3(float *x, const float *own, const float *offset, int64_t pixels) {
    four red = {own[0], own[3], own[6], 0}, green = {own[1], own[4], own[7], 0}, blue = {own[2], own[5], own[8], 0};
    four rest = {offset[0], offset[1], offset[2], 0};
    for (int64_t p = 0; p < pixels; p++, x += 3) {
        four y = clipped(red * all(x[0]) + green * all(x[1]) + blue * all(x[2]) + rest);
        store3(x, y);
    }
}

/* out[i] = the pixel between two of a line of three channels. */
CLONES static void across3(const float *line, const int32_t *first, const int32_t *second, const float *weight,
                           float scale, float *out, int size) {
    for (int i = 0; i < size; i++, out += 3) {
        four a = load4(line + first[i]), b = load4(line + second[i]);
        store3(out, clipped(all(scale) * (a + all(weight[i]) * (b - a))));
    }
}

/* One row of a turned view of three channels. */
CLONES static void read_row3(const float *image, const int32_t *base, const int32_t *right, const int32_t *below,
                             const float *wx, const float *wy, float scale, float *out, int size) {
    for (int j = 0; j < size; j++, out += 3) {
        const float *at = image + base[j];
        four p = load4(at), q = load4(at + right[j]), r = load4(at + below[j]), s = load4(at + below[j] + right[j]);
        four upper = p + all(wx[j]) * (q - p), lower = r + all(wx[j]) * (s - r);
        store3(out, clipped(all(scale) * (upper + all(wy[j]) * (lower - upper))));
    }
}
#endif

static void mix(float *x, const float *own, const float *offset, int64_t pixels, int c, float *temporary) {
#ifdef HAS_FOUR
    if (c == 3) {
        mix3(x, own, offset, pixels);
        return;
    }
#endif
    for (int64_t p = 0; p < pixels; p++, x += c) {
        for (int k = 0; k < c; k++) {
            float y = offset[k];
            for (int j = 0; j < c; j++) y += own[k * c + j] * x[j];
            temporary[k] = y < 0 ? 0 : (y > 1 ? 1 : y);
        }
        memcpy(x, temporary, (size_t)c * sizeof(float));
    }
}

/* One image by a grid without shear: rows of the view are rows of the image. */
static void straight(const void *image, int wide, int h, int w, int c, const float *theta, int size, float scale,
                     float *out, float *line, int32_t *low, int32_t *high, float *weight, int32_t *cols) {
    int32_t *first = cols, *second = cols + size;
    float *part = weight + (int64_t)size * c; /* room for one line of taps */
    float step = theta[0] * (float)w / (float)size, down = theta[4] * (float)h / (float)size;
    float start = ((theta[2] + 1) * (float)w - 1) / 2 + theta[0] * (1.0f / (float)size - 1) * (float)w / 2;
    float top = ((theta[5] + 1) * (float)h - 1) / 2 + theta[4] * (1.0f / (float)size - 1) * (float)h / 2;
    if (fabsf(fabsf(step) - 1) < 1e-4f && fabsf(fabsf(down) - 1) < 1e-4f && fabsf(start - roundf(start)) < 1e-2f &&
        fabsf(top - roundf(top)) < 1e-2f) { /* stored pixels one to one: rounding must not blur them */
        step = roundf(step), down = roundf(down), start = roundf(start), top = roundf(top);
    }
    taps(start, step, size, w, c, first, second, part);
    int whole = step == 1.0f && part[0] == 0 && first[size - 1] - first[0] == (size - 1) * c;
    for (int i = 0; i < size && whole; i++) whole = part[i] == 0;
#ifdef HAS_FOUR
    int each = !whole && c != 3;
#else
    int each = !whole;
#endif
    for (int i = 0; i < size && each; i++)
        for (int k = 0; k < c; k++) {
            low[i * c + k] = first[i] + k;
            high[i * c + k] = second[i] + k;
            weight[i * c + k] = part[i];
        }
    int64_t row = (int64_t)w * c;
    for (int i = 0; i < size; i++) {
        float y = mirrored(top + down * (float)i, h);
        int upper = (int)y, lower = upper + 1 < h ? upper + 1 : upper;
        if (wide)
            blend_u16((const uint16_t *)image + upper * row, (const uint16_t *)image + lower * row, y - (float)upper,
                      line, row);
        else
            blend_u8((const uint8_t *)image + upper * row, (const uint8_t *)image + lower * row, y - (float)upper,
                     line, row);
        float *made = out + (int64_t)i * size * c;
        if (whole)
            along(line + first[0], scale, made, (int64_t)size * c);
        else if (each)
            across(line, low, high, weight, scale, made, (int64_t)size * c);
#ifdef HAS_FOUR
        else
            across3(line, first, second, part, scale, made, size);
#endif
    }
}

/* Where row v of a view lies in a stored image: first tap, steps to its neighbours, weights, for each column. */
CLONES static void places_of_row(const float *theta, float v, int size, int h, int w, int c,
                                 int32_t *restrict base, int32_t *restrict right, int32_t *restrict below,
                                 float *restrict wx, float *restrict wy) {
    float across_u = theta[0] * (float)w / 2, across_0 = ((theta[1] * v + theta[2] + 1) * (float)w - 1) / 2;
    float down_u = theta[3] * (float)h / 2, down_0 = ((theta[4] * v + theta[5] + 1) * (float)h - 1) / 2;
    for (int j = 0; j < size; j++) {
        float u = (2 * (float)j + 1) / (float)size - 1;
        float x = mirrored(across_u * u + across_0, w), y = mirrored(down_u * u + down_0, h);
        int32_t x0 = (int32_t)x, y0 = (int32_t)y;
        wx[j] = x - (float)x0;
        wy[j] = y - (float)y0;
        base[j] = (y0 * w + x0) * c;
        right[j] = x0 + 1 < w ? c : 0;
        below[j] = y0 + 1 < h ? w * c : 0;
    }
}

CLONES static void read_row(const float *image, const int32_t *base, const int32_t *right, const int32_t *below,
                            const float *wx, const float *wy, float scale, float *out, int size, int c) {
    for (int j = 0; j < size; j++, out += c) {
        const float *p = image + base[j], *q = p + right[j], *r = p + below[j], *s = r + right[j];
        for (int k = 0; k < c; k++) {
            float upper = p[k] + wx[j] * (q[k] - p[k]), lower = r[k] + wx[j] * (s[k] - r[k]);
            float y = scale * (upper + wy[j] * (lower - upper));
            out[k] = y > 1 ? 1 : y;
        }
    }
}

/* One image by any affine grid; `whole` has room for it in float32. */
static void turned(const void *image, int wide, int h, int w, int c, const float *theta, int size, float scale,
                   float *out, float *whole, float *wx, int32_t *base) {
    int64_t count = (int64_t)h * w * c;
    if (wide)
        blend_u16(image, image, 0, whole, count);
    else
        blend_u8(image, image, 0, whole, count);
    for (int i = 0; i < size; i++) {
        float v = (2 * (float)i + 1) / (float)size - 1;
        places_of_row(theta, v, size, h, w, c, base, base + size, base + 2 * size, wx, wx + size);
        float *made = out + (int64_t)i * size * c;
#ifdef HAS_FOUR
        if (c == 3) {
            read_row3(whole, base, base + size, base + 2 * size, wx, wx + size, scale, made, size);
            continue;
        }
#endif
        read_row(whole, base, base + size, base + 2 * size, wx, wx + size, scale, made, size, c);
    }
}

/* The mean of every channel of a view: rows in float32, their sum in double. */
CLONES static void means(const float *view, int size, int c, float *sums) {
    double pixels = (double)size * size;
    for (int k = 0; k < c; k++) {
        double total = 0;
        for (int64_t i = 0; i < size; i++) {
            const float *row = view + i * size * c + k;
            float parts[4] = {0, 0, 0, 0};
            int j = 0;
            for (; j + 4 <= size; j += 4, row += 4 * (int64_t)c) {
                parts[0] += row[0], parts[1] += row[c], parts[2] += row[2 * c], parts[3] += row[3 * c];
            }
            for (; j < size; j++, row += c) parts[0] += row[0];
            total += (double)(parts[0] + parts[1]) + (double)(parts[2] + parts[3]);
        }
        sums[k] = (float)(total / pixels);
    }
}

/* Images `from` to `to` (exclusive) of n: pixels (n, h, w, c) of 1 or 2 bytes, theta (n, 6), own and mean
 * (n, c, c) or NULL -> out (n, size, size, c) float32 in [0, 1]. Returns 0, or -1 where memory is short. */
EXPORT int semblance_views(const void *pixels, int wide, int64_t from, int64_t to, int h, int w, int c,
                           const float *theta, int size, const float *own, const float *mean, float scale,
                           float *out) {
    int64_t image = (int64_t)h * w * c, view = (int64_t)size * size * c, columns = (int64_t)size * c;
    float *line = malloc(((size_t)image + (size_t)columns + 2 * (size_t)size + 3 * (size_t)c + 4) * sizeof(float));
    int32_t *places = malloc((2 * (size_t)columns + 3 * (size_t)size) * sizeof(int32_t));
    if (!line || !places) {
        free(line);
        free(places);
        return -1;
    }
    float *weight = line + image + 4, *offset = weight + columns + 2 * (int64_t)size, *sums = offset + c;
    int32_t *spots = places + 2 * columns;
    for (int64_t i = from; i < to; i++) {
        const void *source = (const uint8_t *)pixels + i * image * (wide ? 2 : 1);
        const float *t = theta + 6 * i;
        float *made = out + i * view;
        if (t[1] == 0 && t[3] == 0)
            straight(source, wide, h, w, c, t, size, scale, made, line, places, places + columns, weight, spots);
        else
            turned(source, wide, h, w, c, t, size, scale, made, line, weight, spots);
        if (!own) continue;
        memset(offset, 0, (size_t)c * sizeof(float));
        if (mean) {
            means(made, size, c, sums);
            for (int k = 0; k < c; k++)
                for (int j = 0; j < c; j++) offset[k] += mean[(i * c + k) * c + j] * sums[j];
        }
        mix(made, own + i * c * c, offset, (int64_t)size * size, c, sums + c);
    }
    free(line);
    free(places);
    return 0;
}

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_native", NULL, -1, NULL, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__native(void) { return PyModule_Create(&definition); }
