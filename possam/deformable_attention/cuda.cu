// Multi-scale deformable attention on a GPU, forward and backward; operator.py has the equation, and cuda.py loads what
// build_cuda.py makes of this. Untested on a GPU.
//
// B images, S tokens (map after map, row-major), H heads, D channels per head, N queries, L maps, P points per map:
//     value [B, S, H, D] of T      locations [B, N, H, L, P, 2] and weights [B, N, H, L, P] of A, which sums are of too
//     output [B, N, H, D] of T     gradients, all of A
//
// `lanes` threads are one head of one query; each has a pack of V channels side by side, which it reads with one load of
// 16 bytes, and then the pack lanes·V further on, if there are more. The backward pass adds the three sums over channels
// by shuffles, and the gradient of value by atomics, four sums at once where the GPU can (9.0).
//
// Compiled without nvcc the same functions run on a CPU, one lane after the other: for tests of the arithmetic.

#include <cmath>
#include <cstdint>

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#define BOTH __host__ __device__ __forceinline__
#else
#define BOTH inline
#endif

constexpr int MAX_LEVELS = 8;

struct Shape {  // outside of the namespace: nvcc does not export functions of types within
  int64_t B, S, N;
  int32_t H, D, L, P, device;
  int32_t sizes[2 * MAX_LEVELS];  // (h, w) of each map
};

namespace {

template <typename T, int V>
struct alignas(V * sizeof(T)) Pack {
  T at[V];
};

// Where a sample lies: the cell above and to the left, and how far it is from that cell's centre.
template <typename A>
struct Sample {
  A weight, left, top, east, south;

  BOTH Sample(const A* location, A weight, int h, int w) : weight(weight) {
    const A x = location[0] * A(w) - A(0.5), y = location[1] * A(h) - A(0.5);
    left = std::floor(x), top = std::floor(y);
    east = x - left, south = y - top;
  }
};

// One of the four cells around it. Compared before they become integers: a location may be anything, also NaN.
template <typename A>
struct Corner {
  bool inside;
  int32_t cell;
  A across, down;

  BOTH Corner(const Sample<A>& sample, int which, int h, int w) {
    const A column = sample.left + A(which % 2), line = sample.top + A(which / 2);
    inside = column >= A(0) && column < A(w) && line >= A(0) && line < A(h);
    cell = inside ? int32_t(line) * w + int32_t(column) : 0;
    across = which % 2 ? sample.east : A(1) - sample.east;
    down = which / 2 ? sample.south : A(1) - sample.south;
  }
};

// target += share · values, four at once where the GPU can
template <typename A, int V>
BOTH void add(A* target, A share, const A (&values)[V]) {
#ifndef __CUDA_ARCH__
  for (int i = 0; i < V; ++i) target[i] += share * values[i];
#elif __CUDA_ARCH__ >= 900
  if constexpr (V % 4 == 0 && sizeof(A) == sizeof(float)) {
#pragma unroll
    for (int i = 0; i < V; i += 4)
      atomicAdd(reinterpret_cast<float4*>(target + i),
                make_float4(share * values[i], share * values[i + 1], share * values[i + 2], share * values[i + 3]));
  } else {
#pragma unroll
    for (int i = 0; i < V; ++i) atomicAdd(target + i, share * values[i]);
  }
#else
#pragma unroll
  for (int i = 0; i < V; ++i) atomicAdd(target + i, share * values[i]);
#endif
}

// Each head of each query has a power of two of lanes: as many as there are packs, and as a warp has at most.
BOTH int count_lanes(int packs) {
  int lanes = 1;
  while (2 * lanes <= packs && lanes < 32) lanes *= 2;
  return lanes;
}

// Writes the sum of what the lanes have.
template <typename A>
BOTH void write_sum(A* target, A part, int lane, [[maybe_unused]] int lanes, bool real) {
#ifdef __CUDA_ARCH__
  for (int other = lanes / 2; other > 0; other /= 2) part += __shfl_xor_sync(0xffffffffu, part, other);
  if (real && lane == 0) *target = part;
#else
  if (real) *target = lane == 0 ? part : *target + part;
#endif
}

// One lane of row `row`, that is head row % H of query row / H, of image b.
template <typename T, typename A, int V>
BOTH void forward(const Shape& s, int64_t b, int32_t row, int lane, int lanes, const T* __restrict__ value,
                  const A* __restrict__ locations, const A* __restrict__ weights, T* __restrict__ output) {
  const int64_t rows = s.N * s.H, first = (b * rows + row) * s.L * s.P;
  const int32_t stride = s.H * s.D;
  for (int d = lane * V; d < s.D; d += lanes * V) {
    const T* map = value + b * s.S * stride + row % s.H * s.D + d;
    A total[V] = {};
    int64_t at = first;
    for (int l = 0; l < s.L; ++l) {
      const int h = s.sizes[2 * l], w = s.sizes[2 * l + 1];
#pragma unroll 4
      for (int p = 0; p < s.P; ++p, ++at) {
        const Sample<A> sample(locations + 2 * at, weights[at], h, w);
#pragma unroll
        for (int which = 0; which < 4; ++which) {
          const Corner<A> corner(sample, which, h, w);
          Pack<T, V> cell = {};
          if (corner.inside) cell = *reinterpret_cast<const Pack<T, V>*>(map + corner.cell * stride);
          const A share = sample.weight * corner.across * corner.down;
#pragma unroll
          for (int i = 0; i < V; ++i) total[i] += share * A(cell.at[i]);
        }
      }
      map += h * w * stride;
    }
    Pack<T, V> result;
#pragma unroll
    for (int i = 0; i < V; ++i) result.at[i] = T(total[i]);
    *reinterpret_cast<Pack<T, V>*>(output + (b * rows + row) * s.D + d) = result;
  }
}

// With e_i the share of corner i, v_i its cell and g the gradient of the output:
//     d/d weight = Σ_i e_i <g, v_i>     d/d v_i = weight e_i g     d/d x = weight w Σ_i (d e_i / dx) <g, v_i>
// All lanes of a warp come here, since they add up together; those that are not `real` write nothing.
template <typename T, typename A, int V>
BOTH void backward(const Shape& s, int64_t b, int32_t row, int lane, int lanes, bool real, const T* __restrict__ grad,
                   const T* __restrict__ value, const A* __restrict__ locations, const A* __restrict__ weights,
                   A* __restrict__ grad_value, A* __restrict__ grad_locations, A* __restrict__ grad_weights) {
  const int64_t rows = s.N * s.H;
  const int32_t stride = s.H * s.D;
  int64_t map = b * s.S * stride + row % s.H * s.D, at = (b * rows + row) * s.L * s.P;
  grad += (b * rows + row) * s.D;
  for (int l = 0; l < s.L; ++l) {
    const int h = s.sizes[2 * l], w = s.sizes[2 * l + 1];
#pragma unroll 4
    for (int p = 0; p < s.P; ++p, ++at) {
      const Sample<A> sample(locations + 2 * at, weights[at], h, w);
      A by_weight = 0, by_x = 0, by_y = 0;
      for (int d = lane * V; d < s.D; d += lanes * V) {
        const Pack<T, V> pack = *reinterpret_cast<const Pack<T, V>*>(grad + d);
        A g[V];
#pragma unroll
        for (int i = 0; i < V; ++i) g[i] = A(pack.at[i]);
#pragma unroll
        for (int which = 0; which < 4; ++which) {
          const Corner<A> corner(sample, which, h, w);
          const int64_t place = map + corner.cell * stride + d;
          Pack<T, V> cell = {};
          if (corner.inside) cell = *reinterpret_cast<const Pack<T, V>*>(value + place);
          A dot = 0;
#pragma unroll
          for (int i = 0; i < V; ++i) dot += g[i] * A(cell.at[i]);
          by_weight += corner.across * corner.down * dot;
          by_x += (which % 2 ? corner.down : -corner.down) * dot;
          by_y += (which / 2 ? corner.across : -corner.across) * dot;
          if (corner.inside && real) add<A, V>(grad_value + place, sample.weight * corner.across * corner.down, g);
        }
      }
      write_sum(grad_weights + at, by_weight, lane, lanes, real);
      write_sum(grad_locations + 2 * at, sample.weight * A(w) * by_x, lane, lanes, real);
      write_sum(grad_locations + 2 * at + 1, sample.weight * A(h) * by_y, lane, lanes, real);
    }
    map += int64_t(h) * w * stride;
  }
}

#ifdef __CUDACC__

constexpr int BLOCK = 256;

template <typename T, typename A, int V>
__global__ void __launch_bounds__(BLOCK)
    forward_kernel(const __grid_constant__ Shape s, int lanes, const T* value, const A* locations, const A* weights,
                   T* output) {
  const int64_t row = (int64_t(blockIdx.x) * BLOCK + threadIdx.x) / lanes;
  if (row < s.N * s.H)
    forward<T, A, V>(s, blockIdx.y, int32_t(row), threadIdx.x % lanes, lanes, value, locations, weights, output);
}

template <typename T, typename A, int V>
__global__ void __launch_bounds__(BLOCK)
    backward_kernel(const __grid_constant__ Shape s, int lanes, const T* grad, const T* value, const A* locations,
                    const A* weights, A* grad_value, A* grad_locations, A* grad_weights) {
  const int64_t row = (int64_t(blockIdx.x) * BLOCK + threadIdx.x) / lanes;
  const bool real = row < s.N * s.H;
  backward<T, A, V>(s, blockIdx.y, real ? int32_t(row) : 0, threadIdx.x % lanes, lanes, real, grad, value, locations,
                    weights, grad_value, grad_locations, grad_weights);
}

// Runs `kernel`, forward or backward.
template <typename... Parameters, typename... Arguments>
int launch(void (*kernel)(const Shape, int, Parameters...), const Shape& s, int packs, void* stream,
           Arguments... arguments) {
  const int lanes = count_lanes(packs);
  const int64_t blocks = (s.N * s.H * lanes + BLOCK - 1) / BLOCK;
  if (const cudaError_t error = cudaSetDevice(s.device)) return int(error);
  const dim3 grid(blocks, s.B);
  kernel<<<grid, BLOCK, 0, static_cast<cudaStream_t>(stream)>>>(s, lanes, arguments...);
  return int(cudaGetLastError());
}

// Whether 16 bytes may be read at once.
template <typename... Pointers>
bool aligned(const Shape& s, int in_pack, Pointers... pointers) {
  return s.D % in_pack == 0 && ((reinterpret_cast<uintptr_t>(pointers) | ...) & 15) == 0;
}

template <typename T, typename A>
int run_forward(const T* value, const A* locations, const A* weights, T* output, const Shape& s, void* stream) {
  constexpr int V = 16 / sizeof(T);
  if (aligned(s, V, value, output))
    return launch(forward_kernel<T, A, V>, s, s.D / V, stream, value, locations, weights, output);
  return launch(forward_kernel<T, A, 1>, s, s.D, stream, value, locations, weights, output);
}

template <typename T, typename A>
int run_backward(const T* grad, const T* value, const A* locations, const A* weights, A* grad_value, A* grad_locations,
                 A* grad_weights, const Shape& s, void* stream) {
  constexpr int V = 16 / sizeof(T);
  if (aligned(s, V, grad, value, grad_value))
    return launch(backward_kernel<T, A, V>, s, s.D / V, stream, grad, value, locations, weights, grad_value,
                  grad_locations, grad_weights);
  return launch(backward_kernel<T, A, 1>, s, s.D, stream, grad, value, locations, weights, grad_value, grad_locations,
                grad_weights);
}

#else

// One lane after the other.
template <typename Task>
int each_lane(const Shape& s, int packs, const Task& task) {
  const int lanes = count_lanes(packs);
  for (int64_t b = 0; b < s.B; ++b)
    for (int32_t row = 0; row < s.N * s.H; ++row)
      for (int lane = 0; lane < lanes; ++lane) task(b, row, lane, lanes);
  return 0;
}

template <typename T, typename A>
int run_forward(const T* value, const A* locations, const A* weights, T* output, const Shape& s, void*) {
  const int V = s.D % (16 / sizeof(T)) ? 1 : 16 / sizeof(T);
  return each_lane(s, s.D / V, [&](int64_t b, int32_t row, int lane, int lanes) {
    (V == 1 ? forward<T, A, 1> : forward<T, A, 16 / sizeof(T)>)(s, b, row, lane, lanes, value, locations, weights,
                                                                output);
  });
}

template <typename T, typename A>
int run_backward(const T* grad, const T* value, const A* locations, const A* weights, A* grad_value, A* grad_locations,
                 A* grad_weights, const Shape& s, void*) {
  const int V = s.D % (16 / sizeof(T)) ? 1 : 16 / sizeof(T);
  return each_lane(s, s.D / V, [&](int64_t b, int32_t row, int lane, int lanes) {
    (V == 1 ? backward<T, A, 1> : backward<T, A, 16 / sizeof(T)>)(s, b, row, lane, lanes, true, grad, value, locations,
                                                                  weights, grad_value, grad_locations, grad_weights);
  });
}

#endif

}  // namespace

// What Python calls: 0, or the number of CUDA's error.
#define EXPORT(NAME, T, A)                                                                                          \
  extern "C" int forward_##NAME(const T* value, const A* locations, const A* weights, T* output, const Shape* shape, \
                                void* stream) {                                                                     \
    return run_forward<T, A>(value, locations, weights, output, *shape, stream);                                    \
  }                                                                                                                 \
  extern "C" int backward_##NAME(const T* grad, const T* value, const A* locations, const A* weights, A* grad_value, \
                                 A* grad_locations, A* grad_weights, const Shape* shape, void* stream) {            \
    return run_backward<T, A>(grad, value, locations, weights, grad_value, grad_locations, grad_weights, *shape,    \
                              stream);                                                                              \
  }

EXPORT(float32, float, float)
EXPORT(float64, double, double)
#ifdef __CUDACC__
EXPORT(float16, __half, float)
EXPORT(bfloat16, __nv_bfloat16, float)
extern "C" const char* message(int error) { return cudaGetErrorString(cudaError_t(error)); }
#else
extern "C" const char* message(int) { return ""; }
#endif
