// SPDX-License-Identifier: MIT
#include "token/seed.hpp"

#include <openssl/err.h>
#include <openssl/evp.h>

#include <stdexcept>

namespace tokengate::detail {
namespace {

constexpr std::string_view hex_digits = "0123456789abcdef";

/// As Python's repr: single quotes, unless the name has single quotes and no double quotes.
void append_quoted(std::string& out, std::string_view name) {
    auto has = [&](char wanted) { return name.find(wanted) != std::string_view::npos; };
    const char quote = has('\'') && !has('"') ? '"' : '\'';

    out += quote;
    for (char each : name) {
        if (each == quote || each == '\\') out += '\\';
        out += each;
    }
    out += quote;
}

[[noreturn]] void throw_crypto_error() {
    char text[256] = "no reason given";
    if (unsigned long code = ERR_get_error()) ERR_error_string_n(code, text, sizeof text);
    ERR_clear_error();
    throw std::runtime_error(std::string("seed digest: libcrypto cannot compute SHA-256: ") + text);
}

}  // namespace

std::string frozen_call_list(std::span<const char* const> names) {
    std::string list = "(";
    for (const char* name : names) {
        if (list.size() > 1) list += ", ";
        append_quoted(list, name);
    }
    return list += names.size() == 1 ? ",)" : ")";
}

digest_text seed_digest(std::string_view token_id, std::span<const char* const> calls) {
    std::string text(token_id);
    (text += ':') += frozen_call_list(calls);

    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned int size = 0;
    ERR_clear_error();
    if (EVP_Digest(text.data(), text.size(), digest, &size, EVP_sha256(), nullptr) != 1)
        throw_crypto_error();

    digest_text hex{};
    for (std::size_t i = 0; i < hex.size() / 2; ++i) {
        hex[2 * i] = hex_digits[digest[i] >> 4];
        hex[2 * i + 1] = hex_digits[digest[i] & 15];
    }
    return hex;
}

}  // namespace tokengate::detail
