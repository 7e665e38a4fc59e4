// Multi-scale deformable attention on a CPU, forward and backward; operator.py has the equation, cpu.py loads it.
//
// B images, S tokens (map after map, row-major), H heads, D channels per head, N queries, L maps, P points per map:
//     value [B, S, H, D]   sizes [L, 2], (h, w)   locations [B, N, H, L, P, 2]   weights [B, N, H, L, P]
//     output [B, N, H, D]
//
// One task is one head of one image (forward), or of that one map (backward). Nobody else writes what a task writes and
// it goes through its queries in order, so there are no atomics and the sums do not depend on the number of threads.
// A task first copies its head's channels side by side: in `value` a cell's D numbers lie H·D apart, which no cache
// likes. After the cells the copy has one row of zeros, which stands for all that lies beyond the map.

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <exception>
#include <system_error>
#include <thread>
#include <vector>

namespace {

constexpr int64_t BLOCK = 64;  // samples that are located together; P is at most this

struct Shape {
  int64_t B, S, H, D, N, L, P, threads;
};

template <typename Task>
void in_parallel(int64_t count, int64_t threads, const Task& task) {
  std::atomic<int64_t> next{0};
  std::exception_ptr error;
  std::atomic<bool> failed{false};
  auto work = [&] {
    try {
      for (int64_t i; (i = next++) < count;) task(i);
    } catch (...) {
      if (!failed.exchange(true)) error = std::current_exception();
      next = count;
    }
  };
  std::vector<std::thread> others;
  try {
    for (int64_t i = 1; i < std::min(threads, count); ++i) others.emplace_back(work);
  } catch (const std::system_error&) {  // no more threads to be had: those that are there do it all
  }
  work();
  for (auto& other : others) other.join();
  if (error) std::rethrow_exception(error);
}

// Of each sample: the four cells around it, west and east above, west and east below, and how far it is from the first.
template <typename T>
struct Samples {
  int32_t cells[4][BLOCK];
  T x[BLOCK], y[BLOCK], weight[BLOCK];

  // Q queries of one head on one map; `beyond` is the row of zeros. Clamped before they become integers: a location may
  // be anything, also NaN, for which every comparison is false.
  void locate(const T* locations, const T* weights, int64_t Q, int64_t P, int64_t stride, int64_t h, int64_t w) {
    for (int64_t q = 0, i = 0; q < Q; ++q)
      for (int64_t p = 0; p < P; ++p, ++i) {
        x[i] = locations[2 * (q * stride + p)];
        y[i] = locations[2 * (q * stride + p) + 1];
        weight[i] = weights[q * stride + p];
      }
    const T width = T(w), height = T(h);
    const int32_t row = int32_t(w), beyond = int32_t(h * w);
    const int64_t count = Q * P;
#pragma omp simd
    for (int64_t i = 0; i < count; ++i) {
      const T column = x[i] * width - T(0.5), line = y[i] * height - T(0.5);
      const T left = std::floor(column), top = std::floor(line);
      x[i] = column - left;
      y[i] = line - top;
      const bool west = (left >= T(0)) & (left < width), east = (left >= T(-1)) & (left < width - 1);
      const bool north = (top >= T(0)) & (top < height), south = (top >= T(-1)) & (top < height - 1);
      const int32_t column0 = west | east ? int32_t(left) : 0, line0 = north | south ? int32_t(top) : 0;
      const int32_t cell = line0 * row + column0;
      cells[0][i] = west & north ? cell : beyond;
      cells[1][i] = east & north ? cell + 1 : beyond;
      cells[2][i] = west & south ? cell + row : beyond;
      cells[3][i] = east & south ? cell + row + 1 : beyond;
    }
  }
};

// One head of one map, [cells, D], with the row of zeros behind.
template <typename T>
void copy_head(const T* value, int64_t cells, int64_t stride, int64_t D, T* to) {
  for (int64_t i = 0; i < cells; ++i) std::memcpy(to + i * D, value + i * stride, D * sizeof(T));
  std::fill(to + cells * D, to + (cells + 1) * D, T(0));
}

// DEPTH is D where it is known when this is compiled, or 0.
template <typename T, int64_t DEPTH>
void forward(const T* value, const int64_t* sizes, const T* locations, const T* weights, T* output, const Shape& s) {
  const int64_t D = DEPTH ? DEPTH : s.D, at_once = BLOCK / s.P, stride = s.H * s.L * s.P;
  in_parallel(s.B * s.H, s.threads, [&](int64_t task) {
    const int64_t b = task / s.H, m = task % s.H;
    std::vector<T> copies((s.S + s.L) * D), sums(at_once * D);
    const T* from = value + (b * s.S * s.H + m) * D;
    T* to = copies.data();
    for (int64_t l = 0; l < s.L; ++l) {
      const int64_t cells = sizes[2 * l] * sizes[2 * l + 1];
      copy_head(from, cells, s.H * D, D, to);
      from += cells * s.H * D;
      to += (cells + 1) * D;
    }
    Samples<T> samples;
    for (int64_t n = 0; n < s.N; n += at_once) {
      const int64_t Q = std::min(at_once, s.N - n);
      std::fill(sums.begin(), sums.end(), T(0));
      const T* map = copies.data();
      for (int64_t l = 0; l < s.L; ++l) {
        const int64_t first = (((b * s.N + n) * s.H + m) * s.L + l) * s.P;
        samples.locate(locations + 2 * first, weights + first, Q, s.P, stride, sizes[2 * l], sizes[2 * l + 1]);
        for (int64_t q = 0, i = 0; q < Q; ++q) {
          T* sum = sums.data() + q * D;
          for (int64_t p = 0; p < s.P; ++p, ++i) {
            const T a = samples.weight[i], x = samples.x[i], y = samples.y[i];
            const T a3 = a * x * y, a2 = a * y - a3, a1 = a * x - a3, a0 = a - a1 - a2 - a3;
            const T* v0 = map + samples.cells[0][i] * D;
            const T* v1 = map + samples.cells[1][i] * D;
            const T* v2 = map + samples.cells[2][i] * D;
            const T* v3 = map + samples.cells[3][i] * D;
#pragma omp simd
            for (int64_t d = 0; d < D; ++d) sum[d] += a0 * v0[d] + a1 * v1[d] + a2 * v2[d] + a3 * v3[d];
          }
        }
        map += (sizes[2 * l] * sizes[2 * l + 1] + 1) * D;
      }
      for (int64_t q = 0; q < Q; ++q)
        std::memcpy(output + ((b * s.N + n + q) * s.H + m) * D, &sums[q * D], D * sizeof(T));
    }
  });
}

// With e_i the share of corner i, v_i its cell and g the gradient of the output:
//     d/d weight = Σ_i e_i <g, v_i>     d/d v_i = weight e_i g     d/d x = weight w Σ_i (d e_i / dx) <g, v_i>
template <typename T, int64_t DEPTH>
void backward(const T* grad, const T* value, const int64_t* sizes, const T* locations, const T* weights, T* grad_value,
              T* grad_locations, T* grad_weights, const Shape& s) {
  const int64_t D = DEPTH ? DEPTH : s.D, at_once = BLOCK / s.P, stride = s.H * s.L * s.P;
  std::vector<int64_t> starts(s.L, 0);
  for (int64_t l = 1; l < s.L; ++l) starts[l] = starts[l - 1] + sizes[2 * l - 2] * sizes[2 * l - 1];
  in_parallel(s.B * s.H * s.L, s.threads, [&](int64_t task) {
    const int64_t l = s.L - 1 - task / (s.B * s.H), b = task % (s.B * s.H) / s.H, m = task % s.H;  // largest maps first
    const int64_t h = sizes[2 * l], w = sizes[2 * l + 1], cells = h * w;
    const int64_t offset = ((b * s.S + starts[l]) * s.H + m) * D;
    std::vector<T> map((cells + 1) * D), sums((cells + 1) * D, T(0));
    copy_head(value + offset, cells, s.H * D, D, map.data());
    Samples<T> samples;
    for (int64_t n = 0; n < s.N; n += at_once) {
      const int64_t Q = std::min(at_once, s.N - n), first = (((b * s.N + n) * s.H + m) * s.L + l) * s.P;
      samples.locate(locations + 2 * first, weights + first, Q, s.P, stride, h, w);
      for (int64_t q = 0, i = 0; q < Q; ++q) {
        const T* g = grad + ((b * s.N + n + q) * s.H + m) * D;
        for (int64_t p = 0; p < s.P; ++p, ++i) {
          const T a = samples.weight[i], x = samples.x[i], y = samples.y[i];
          const T e3 = x * y, e2 = y - e3, e1 = x - e3, e0 = 1 - x - e2;
          T dots[4];
          for (int64_t corner = 0; corner < 4; ++corner) {
            const T* v = map.data() + samples.cells[corner][i] * D;
            T dot = 0;
#pragma omp simd reduction(+ : dot)
            for (int64_t d = 0; d < D; ++d) dot += g[d] * v[d];
            dots[corner] = dot;
          }
          const T shares[4] = {a * e0, a * e1, a * e2, a * e3};
          for (int64_t corner = 0; corner < 4; ++corner) {
            T* sum = sums.data() + samples.cells[corner][i] * D;
            const T share = shares[corner];
#pragma omp simd
            for (int64_t d = 0; d < D; ++d) sum[d] += share * g[d];
          }
          const int64_t at = first + q * stride + p;
          grad_weights[at] = e0 * dots[0] + e1 * dots[1] + e2 * dots[2] + e3 * dots[3];
          grad_locations[2 * at] = a * T(w) * ((1 - y) * (dots[1] - dots[0]) + y * (dots[3] - dots[2]));
          grad_locations[2 * at + 1] = a * T(h) * ((1 - x) * (dots[2] - dots[0]) + x * (dots[3] - dots[1]));
        }
      }
    }
    for (int64_t i = 0; i < cells; ++i) std::memcpy(grad_value + offset + i * s.H * D, &sums[i * D], D * sizeof(T));
  });
}

template <typename Run>
int caught(const Run& run) {
  try {
    run();
    return 0;
  } catch (const std::exception&) {
    return 1;
  }
}

}  // namespace

// What Python calls: 0, or 1 where memory ran out.
#define EXPORT(NAME, T)                                                                                               \
  extern "C" int forward_##NAME(const T* value, const int64_t* sizes, const T* locations, const T* weights, T* output, \
                                const Shape* s) {                                                                     \
    const auto run = s->D == 32 ? forward<T, 32> : s->D == 16 ? forward<T, 16> : forward<T, 0>;                       \
    return caught([&] { run(value, sizes, locations, weights, output, *s); });                                        \
  }                                                                                                                   \
  extern "C" int backward_##NAME(const T* grad, const T* value, const int64_t* sizes, const T* locations,             \
                                 const T* weights, T* grad_value, T* grad_locations, T* grad_weights,                 \
                                 const Shape* s) {                                                                    \
    const auto run = s->D == 32 ? backward<T, 32> : s->D == 16 ? backward<T, 16> : backward<T, 0>;                    \
    return caught(                                                                                                    \
        [&] { run(grad, value, sizes, locations, weights, grad_value, grad_locations, grad_weights, *s); });          \
  }

EXPORT(float32, float)
EXPORT(float64, double)
