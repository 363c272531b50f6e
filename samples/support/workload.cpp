// SPDX-License-Identifier: MIT
#include "workload.hpp"

#include <openssl/err.h>
#include <openssl/evp.h>

#include <algorithm>
#include <cctype>
#include <functional>
#include <memory>
#include <stdexcept>

namespace workload {

namespace {

/// SplitMix64 (Steele, Lea, Flood 2014).
class generator {
public:
    explicit generator(std::uint64_t seed) noexcept : state_(seed) {}

    std::uint64_t operator()() noexcept {
        std::uint64_t x = state_ += 0x9e3779b97f4a7c15U;
        x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9U;
        x = (x ^ (x >> 27)) * 0x94d049bb133111ebU;
        return x ^ (x >> 31);
    }

    /// A number from 0 to below `bound`. Its small bias does not matter here.
    std::uint32_t below(std::uint32_t bound) noexcept {
        return static_cast<std::uint32_t>(((*this)() >> 32) * bound >> 32);
    }

private:
    std::uint64_t state_;
};

[[noreturn]] void throw_crypto_error() {
    char text[256];
    ERR_error_string_n(ERR_get_error(), text, sizeof text);
    throw std::runtime_error(std::string("SHA-256: ") + text);
}

/// Each thread fetches the algorithm and makes a context once, so that a round costs little more
/// than the hash.
class sha256 {
public:
    sha256() : algorithm_(EVP_MD_fetch(nullptr, "SHA256", nullptr)), context_(EVP_MD_CTX_new()) {
        if (!algorithm_ || !context_) throw_crypto_error();
    }

    void operator()(const void* data, std::size_t size, digest& to) {
        if (!EVP_DigestInit_ex2(context_.get(), algorithm_.get(), nullptr) ||
            !EVP_DigestUpdate(context_.get(), data, size) ||
            !EVP_DigestFinal_ex(context_.get(), to.data(), nullptr))
            throw_crypto_error();
    }

private:
    struct release {
        void operator()(EVP_MD* algorithm) const { EVP_MD_free(algorithm); }
        void operator()(EVP_MD_CTX* context) const { EVP_MD_CTX_free(context); }
    };
    std::unique_ptr<EVP_MD, release> algorithm_;
    std::unique_ptr<EVP_MD_CTX, release> context_;
};

std::uint64_t hash_bytes(const void* data, std::size_t size) {
    return std::hash<std::string_view>{}({static_cast<const char*>(data), size});
}

}  // namespace

std::uint64_t cpu_crunch(unsigned limit) {
    std::uint64_t sum = 0;
    for (unsigned n = 2; n < limit; ++n) {
        bool prime = true;
        for (unsigned d = 2; prime && d * d <= n; ++d) prime = n % d != 0;
        if (prime) sum += n;
    }
    return sum;
}

std::string string_transform(std::uint64_t seed) {
    constexpr std::string_view letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
    generator random(seed);
    std::string text(300, '\0');
    for (char& c : text) c = letters[random.below(letters.size())];
    std::reverse(text.begin(), text.end());
    for (char& c : text) {
        c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
        if (c == 'A') c = '4';
        if (c == 'E') c = '3';
        if (c == 'I') c = '1';
    }
    return text;
}

std::vector<std::uint32_t> data_sort(std::size_t count) {
    generator random(count);
    std::vector<std::uint32_t> numbers(count);
    for (std::uint32_t& n : numbers) n = static_cast<std::uint32_t>(random());
    std::sort(numbers.begin(), numbers.end());
    return numbers;
}

digest hash_chain(std::string_view seed, unsigned rounds) {
    thread_local sha256 hash;
    digest now;
    hash(seed.data(), seed.size(), now);
    for (unsigned i = 1; i < rounds; ++i) hash(now.data(), now.size(), now);
    return now;
}

std::uint64_t fingerprint(std::uint64_t number) { return number; }
std::uint64_t fingerprint(std::string_view text) { return hash_bytes(text.data(), text.size()); }
std::uint64_t fingerprint(const std::vector<std::uint32_t>& numbers) {
    return hash_bytes(numbers.data(), numbers.size() * sizeof numbers[0]);
}
std::uint64_t fingerprint(const digest& hash) { return hash_bytes(hash.data(), hash.size()); }

}  // namespace workload
