// The kernels of the deep GPU checks (health/deep/gpu.py). `kernels.ptx` is this file compiled by scripts/build-kernels;
// the driver translates it for the GPU at hand, so that a check needs no CUDA toolkit and no torch on the node.

typedef unsigned int u32;
typedef unsigned long long u64;

// A pattern that is different in every word and every round: an address line that is stuck shows, and so does a cell.
__device__ __forceinline__ u64 pattern(u64 index, u64 seed) {
    u64 z = index * 0x9E3779B97F4A7C15ull + seed;
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
}

// `words` pairs of 64 bits from `memory` on; `flip` is 0, or all ones for the complement.
extern "C" __global__ void write_pattern(ulonglong2 *memory, u64 words, u64 seed, u64 flip) {
    u64 step = (u64)gridDim.x * blockDim.x;
    for (u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x; i < words; i += step)
        memory[i] = make_ulonglong2(pattern(2 * i, seed) ^ flip, pattern(2 * i + 1, seed) ^ flip);
}

// found[0] counts words that differ, found[1] collects the bits in which they do, found[2] is the lowest such index.
extern "C" __global__ void check_pattern(const ulonglong2 *memory, u64 words, u64 seed, u64 flip, u64 *found) {
    u64 step = (u64)gridDim.x * blockDim.x;
    for (u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x; i < words; i += step) {
        ulonglong2 value = memory[i];
        u64 wrong = (value.x ^ pattern(2 * i, seed) ^ flip) | (value.y ^ pattern(2 * i + 1, seed) ^ flip);
        if (wrong) {
            atomicAdd(found, 1ull);
            atomicOr(found + 1, wrong);
            atomicMin(found + 2, i);
        }
    }
}

extern "C" __global__ void copy(const ulonglong2 *__restrict__ from, ulonglong2 *__restrict__ to, u64 words) {
    u64 step = (u64)gridDim.x * blockDim.x;
    for (u64 i = (u64)blockIdx.x * blockDim.x + threadIdx.x; i < words; i += step) to[i] = from[i];
}

#define TILES 8

// Tensor cores alone: bf16 products of 16x8x16 in registers, the same in every warp, so that every warp must come to the
// same 32 words. out: 32 words a warp; where: the multiprocessor that each warp ran on.
extern "C" __global__ void __launch_bounds__(256) tensor_burn(u32 *out, u32 *where, int iterations) {
    u32 lane = threadIdx.x & 31, warp = (blockIdx.x * blockDim.x + threadIdx.x) >> 5;
    u32 a[4], b[2];
    float c[TILES][4];
    for (int i = 0; i < 4; i++) {
        // Two bf16 of magnitude between 1/2 and 2, of both signs.
        u32 bits = (u32)pattern(lane * 8 + i, 1);
        a[i] = (bits & 0x80FF80FFu) | 0x3F003F00u;
    }
    for (int i = 0; i < 2; i++) {
        u32 bits = (u32)pattern(lane * 8 + 4 + i, 1);
        b[i] = (bits & 0x80FF80FFu) | 0x3F003F00u;
    }
    for (int t = 0; t < TILES; t++)
        for (int i = 0; i < 4; i++) c[t][i] = (float)t;
    for (int n = 0; n < iterations; n++) {
#pragma unroll
        for (int t = 0; t < TILES; t++)
            asm volatile(
                "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                : "+f"(c[t][0]), "+f"(c[t][1]), "+f"(c[t][2]), "+f"(c[t][3])
                : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    }
    u32 folded = 0;
    for (int t = 0; t < TILES; t++)
        for (int i = 0; i < 4; i++) folded = folded * 31u + __float_as_uint(c[t][i]);
    out[warp * 32 + lane] = folded;
    if (lane == 0) {
        u32 sm;
        asm volatile("mov.u32 %0, %%smid;" : "=r"(sm));
        where[warp] = sm;
    }
}
