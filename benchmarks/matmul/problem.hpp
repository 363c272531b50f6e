// SPDX-License-Identifier: MIT
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

/// The product of two matrices of `size` rows, a power of two times 32 at least: by quadrants, down to tiles of 32
/// rows. The four quadrants of a result are independent; each is the sum of two products, one after the other.
/// Entries are small whole numbers, so that every result is exact; a weighted sum of all stands for them.

namespace matmul {

constexpr std::size_t tile = 32;

/// A square within a matrix.
struct square {
    double* first;
    std::size_t stride;

    [[nodiscard]] square quadrant(std::size_t half, unsigned row, unsigned column) const noexcept {
        return {first + row * half * stride + column * half, stride};
    }
};

/// c += a × b.
struct product {
    square a, b, c;
    std::size_t size;

    [[nodiscard]] bool small() const noexcept { return size <= tile; }

    /// The `index`th of four, in the first or second half of the sum.
    [[nodiscard]] product part(unsigned index, unsigned half_of_sum) const noexcept {
        const std::size_t half = size / 2;
        const unsigned row = index / 2, column = index % 2;
        return {a.quadrant(half, row, half_of_sum), b.quadrant(half, half_of_sum, column),
                c.quadrant(half, row, column), half};
    }

    void multiply() const noexcept {
        for (std::size_t i = 0; i < size; ++i)
            for (std::size_t k = 0; k < size; ++k) {
                const double factor = a.first[i * a.stride + k];
                const double* const from = b.first + k * b.stride;
                double* const to = c.first + i * c.stride;
                for (std::size_t j = 0; j < size; ++j) to[j] += factor * from[j];
            }
    }
};

class matrices {
public:
    explicit matrices(std::size_t size)
        : size_(size), a_(size * size), b_(size * size), c_(size * size) {
        for (std::size_t i = 0; i < size; ++i)
            for (std::size_t k = 0; k < size; ++k) {
                a_[i * size + k] = static_cast<double>((3 * i + k) % 11);
                b_[i * size + k] = static_cast<double>((i + 5 * k) % 13);
            }
    }

    [[nodiscard]] std::size_t size() const noexcept { return size_; }

    /// All of it, with a result that is zero.
    [[nodiscard]] product whole() {
        c_.assign(c_.size(), 0);
        return {{a_.data(), size_}, {b_.data(), size_}, {c_.data(), size_}, size_};
    }

    [[nodiscard]] std::uint64_t checksum() const {
        std::uint64_t sum = 0;
        for (std::size_t i = 0; i < size_; ++i)
            for (std::size_t j = 0; j < size_; ++j)
                sum += (i % 7 + 1) * (j % 5 + 1) * static_cast<std::uint64_t>(c_[i * size_ + j]);
        return sum;
    }

private:
    std::size_t size_;
    std::vector<double> a_, b_, c_;
};

}  // namespace matmul
