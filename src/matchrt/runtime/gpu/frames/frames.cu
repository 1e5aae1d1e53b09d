// Kernels that make an engine's inputs of images as cameras and programs hold them, and its keypoints pixels of these.
//
// `frames.ptx` is this file compiled by tools/compile_kernels.py, and is what runs. tests/support/kernels_on_cpu.py
// compiles this file for the CPU, so there is nothing here but plain arithmetic: no shared memory, no headers.
//
// An image is resized in two passes, one along each axis (`runtime.resize_weights`). The first reads the image in its
// own layout and type, and makes 8-bit grey or RGB of it on the way. The second writes the engine's input with its
// padding. Between them are floats. A thread makes one pixel.

// The type of an image's values. Floats are 0 for black and 1 for white.
enum Type { UINT8 = 0, UINT16 = 1, FLOAT16 = 2, FLOAT32 = 3, FLOAT64 = 4 };
// GREY has one value a pixel, COLOUR has three (at `red`, `green` and `blue`), NV12 has luma and, at half the
// resolution, pairs of chroma.
enum Kind { GREY = 0, COLOUR = 1, NV12 = 2 };
// What becomes of the sums of a pass: floats as they are, or integers in 0..255, halves to the even one or up. QUARTERS
// rounds samples and products down first, as `resize_weights.AxisPass` says.
enum Rounding { NONE = 0, HALF_EVEN = 1, HALF_UP = 2, QUARTERS = 3 };

// An image in GPU memory. Offsets and strides are in bytes.
struct Source {
    const unsigned char *data;
    long long row, column;
    long long red, green, blue;       // COLOUR: where the channels are in a pixel
    long long chroma, chroma_row;     // NV12: where the chroma begins, and the stride of its rows
    int kind, type;
};

// One pass: output i is the sum over j < count of weights[j * length + i] * input[first[i] + j].
struct Pass {
    const int *first;
    const float *weights;
    int count, length;                // weights for each output; outputs along the axis
    int rows;                         // 1: along the rows' axis (it changes the height); 0: it changes the width
    int rounding;
};

// One input of the engine.
struct Job {
    Source source;
    Pass passes[2];
    float *middle;                    // [middle_height, middle_width, channels], between the passes
    unsigned char *target;            // [canvas_height, canvas_width, channels]
    int *size;                        // [2], the resized height and width; null if the engine does not ask for them
    int middle_height, middle_width;
    int height, width;                // of the resized image, in the canvas's top-left corner
    int canvas_height, canvas_width;
    int channels, unused;
};

struct Jobs { Job job[4]; };

static __device__ float half_to_float(unsigned short bits) {
    const int exponent = (bits >> 10) & 31, fraction = bits & 1023;
    float value;
    if (exponent == 0) value = fraction * (1.0f / 16777216.0f);
    else if (exponent == 31) value = fraction ? 0.0f : 65536.0f;  // NaN counts as black, infinity as beyond white
    else {
        value = (1024 + fraction) * (1.0f / 1024.0f);
        for (int step = exponent; step > 15; --step) value *= 2.0f;
        for (int step = exponent; step < 15; ++step) value *= 0.5f;
    }
    return bits & 0x8000 ? -value : value;
}

// A value as a level of 0..255. NaN becomes 0.
static __device__ int level(const unsigned char *at, int type) {
    if (type == UINT8) return *at;
    if (type == UINT16) return (*(const unsigned short *)at * 255u + 32767u) / 65535u;
    if (type == FLOAT64) {
        const double wide = *(const double *)at;
        return (int)rint((wide > 0.0 ? (wide < 1.0 ? wide : 1.0) : 0.0) * 255.0);
    }
    const float value = type == FLOAT16 ? half_to_float(*(const unsigned short *)at) : *(const float *)at;
    return (int)rintf((value > 0.0f ? (value < 1.0f ? value : 1.0f) : 0.0f) * 255.0f);
}

static __device__ int limited(int value) { return value < 0 ? 0 : value > 255 ? 255 : value; }

// Red, green and blue of a pixel. NV12 is BT.601 with luma in 16..235, with the integers of OpenCV's
// COLOR_YUV2RGB_NV12.
static __device__ void colours(const Source &source, int y, int x, int &red, int &green, int &blue) {
    if (source.kind == NV12) {
        const unsigned char *pair = source.data + source.chroma + (y / 2) * source.chroma_row + (x / 2) * 2;
        const int luma = source.data[y * source.row + x] - 16;
        const int light = (luma < 0 ? 0 : luma) * 1220542, u = pair[0] - 128, v = pair[1] - 128, half = 1 << 19;
        red = limited((light + half + 1673527 * v) >> 20);
        green = limited((light + half - 852492 * v - 409993 * u) >> 20);
        blue = limited((light + half + 2116026 * u) >> 20);
        return;
    }
    const unsigned char *pixel = source.data + y * source.row + x * source.column;
    red = level(pixel + source.red, source.type);
    green = level(pixel + source.green, source.type);
    blue = level(pixel + source.blue, source.type);
}

// Grey with the integers of `runtime.colours`, which are OpenCV's.
static __device__ float grey(const Source &source, int y, int x) {
    if (source.kind == GREY) return (float)level(source.data + y * source.row + x * source.column, source.type);
    int red, green, blue;
    colours(source, y, x, red, green, blue);
    return (float)((9798 * red + 19235 * green + 3735 * blue + 16384) >> 15);
}

// Product and sum are rounded one after the other, as OpenCV does: means of bytes often end at a half.
static __device__ float added(float sum, float weight, float value, int rounding) {
    if (rounding != QUARTERS) return __fadd_rn(sum, __fmul_rn(weight, value));
    return sum + floorf(floorf(value * 128.0f) * 0.0078125f * weight * 4.0f) * 0.25f;
}

static __device__ float rounded(float value, int rounding) {
    if (rounding == NONE) return value;
    const float whole = rounding == HALF_EVEN ? rintf(value) : floorf(value + 0.5f);
    return whole < 0.0f ? 0.0f : whole > 255.0f ? 255.0f : whole;
}

extern "C" __global__ void first_pass(const __grid_constant__ Jobs jobs) {
    const Job &job = jobs.job[blockIdx.z];
    const int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= job.middle_width || y >= job.middle_height) return;
    const Source &source = job.source;
    const Pass &pass = job.passes[0];
    const int output = pass.rows ? y : x, first = pass.first[output];
    float *middle = job.middle + ((long long)y * job.middle_width + x) * job.channels;
    if (job.channels == 1 || source.kind == GREY) {
        float sum = 0.0f;
        for (int tap = 0; tap < pass.count; ++tap) {
            const int place = first + tap;
            const float value = grey(source, pass.rows ? place : y, pass.rows ? x : place);
            sum = added(sum, pass.weights[tap * pass.length + output], value, pass.rounding);
        }
        for (int channel = 0; channel < job.channels; ++channel) middle[channel] = rounded(sum, pass.rounding);
        return;
    }
    float red = 0.0f, green = 0.0f, blue = 0.0f;
    for (int tap = 0; tap < pass.count; ++tap) {
        const int place = first + tap;
        const float weight = pass.weights[tap * pass.length + output];
        int r, g, b;
        colours(source, pass.rows ? place : y, pass.rows ? x : place, r, g, b);
        red = added(red, weight, (float)r, pass.rounding);
        green = added(green, weight, (float)g, pass.rounding);
        blue = added(blue, weight, (float)b, pass.rounding);
    }
    middle[0] = rounded(red, pass.rounding);
    middle[1] = rounded(green, pass.rounding);
    middle[2] = rounded(blue, pass.rounding);
}

extern "C" __global__ void second_pass(const __grid_constant__ Jobs jobs) {
    const Job &job = jobs.job[blockIdx.z];
    const int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= job.canvas_width || y >= job.canvas_height) return;
    if (x == 0 && y == 0 && job.size) {
        job.size[0] = job.height;
        job.size[1] = job.width;
    }
    unsigned char *target = job.target + ((long long)y * job.canvas_width + x) * job.channels;
    const bool inside = x < job.width && y < job.height;
    const Pass &pass = job.passes[1];
    const int output = pass.rows ? y : x, first = inside ? pass.first[output] : 0;
    const long long step = (long long)(pass.rows ? job.middle_width : 1) * job.channels;
    const long long start = ((long long)(pass.rows ? first : y) * job.middle_width + (pass.rows ? x : first)) * job.channels;
    for (int channel = 0; channel < job.channels; ++channel) {
        float sum = 0.0f;
        if (inside) {
            const float *middle = job.middle + start + channel;
            for (int tap = 0; tap < pass.count; ++tap) {
                sum = added(sum, pass.weights[tap * pass.length + output], middle[tap * step], pass.rounding);
            }
            sum = rounded(sum, pass.rounding);
        }
        target[channel] = (unsigned char)sum;
    }
}

// Keypoints [slots, 2] of both images from pixels of the engine's input to pixels of the images, in place. Rows from
// count[0] on are no matches and stay as they are. The scales are (x, y) of each image.
struct Points {
    float *points[2];
    const int *count;
    double scales[4];
    int slots, unused;
};

extern "C" __global__ void to_pixels(const __grid_constant__ Points task) {
    const int value = blockIdx.x * blockDim.x + threadIdx.x;  // of slots * 2 coordinates
    if (value >= 2 * task.slots || value / 2 >= task.count[0]) return;
    float *point = task.points[blockIdx.y] + value;
    const double scale = task.scales[2 * blockIdx.y + value % 2];
    *point = (float)__dsub_rn(__dmul_rn(__dadd_rn((double)*point, 0.5), scale), 0.5);
}
