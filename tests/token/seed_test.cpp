// SPDX-License-Identifier: MIT
#include "token/seed.hpp"

#include <doctest/doctest.h>

#include <string>
#include <vector>

using namespace tokengate::detail;
using tokengate::digest_policy;

namespace {

using names = std::vector<const char*>;

std::string digest_of(std::string_view token_id, const names& calls) {
    return std::string(shown(seed_digest(token_id, calls), digest_policy::full));
}

}  // namespace

TEST_CASE("digest: a call list reads as a Python tuple of strings") {
    CHECK(frozen_call_list(names{}) == "()");
    CHECK(frozen_call_list(names{"child_op"}) == "('child_op',)");
    CHECK(frozen_call_list(names{"parse", "store"}) == "('parse', 'store')");
    CHECK(frozen_call_list(names{"a", "b", "c"}) == "('a', 'b', 'c')");
    CHECK(frozen_call_list(names{""}) == "('',)");
}

TEST_CASE("digest: names are quoted as Python's repr quotes") {
    CHECK(frozen_call_list(names{"it's"}) == R"(("it's",))");
    CHECK(frozen_call_list(names{R"(say "hi")"}) == R"(('say "hi"',))");
    CHECK(frozen_call_list(names{R"(both ' and ")"}) == R"(('both \' and "',))");
    CHECK(frozen_call_list(names{R"(a\b)"}) == R"(('a\\b',))");
    CHECK(frozen_call_list(names{R"(it's a\b)"}) == R"(("it's a\\b",))");
}

TEST_CASE("digest: the reference vectors of the Python system") {
    CHECK(digest_of("lead_op_1700000000000000000_0", {"child_op"}) ==
          "2c1acf4536eddbf78f7856fe0af464b67226ff269495463e2803bcb843be35c8");
    CHECK(digest_of("lead_op_1700000000000000000_1", {"child_op"}) ==
          "5f48b85a2643f197cf93ab9f42ab01c51fb15f173f599af43cabb42d6fc4ec3d");
    CHECK(digest_of("ingest_42_7", {"parse", "store"}) ==
          "6922d4a942f4df192daea5af4c3f7a6b1884d5e974a6caf388c947e4fa7b9a6b");
}

TEST_CASE("digest: what Python's hashlib gives for odd names and long lists") {
    CHECK(digest_of("lead_1_0", {}) ==
          "7f0946e55c0ffdefdd798737dec61abe0d600aa8a3a9373f899e25abe3f99a75");
    CHECK(digest_of("", {"x"}) ==
          "2f84afdeaaab11ba89dd76a0e42a4e1dfb981d01d301d4252c985ad1deea0c12");
    CHECK(digest_of("lead_1_0", {"it's"}) ==
          "436ead5a9ff47a78865ac37ee3fcbd644c66dffd33ac5b9235d0cba5ded7c4c6");
    CHECK(digest_of("lead_1_0", {"say \"hi\"", "a\\b"}) ==
          "587a547af2dde0921bd99deee67faea1c2618c4836b4e8a99ff9cd68c79e08af");
    CHECK(digest_of("lead_1_0", {"both ' and \"", "x"}) ==
          "b2c7695890a58e39697448bbbe5ca35bad109937129bc44e56f86515bc72cfb5");

    std::vector<std::string> texts;
    for (int i = 0; i < 500; ++i) texts.push_back("call_" + std::to_string(i));
    names calls;
    for (const std::string& text : texts) calls.push_back(text.c_str());
    CHECK(digest_of("lead_1_0", calls) ==
          "fa5696a2e7721a0a90b51544fb6035fcb0449ef7668a7f2cdbd20fd689c10909");
}

TEST_CASE("digest: policies shorten from the front") {
    const names calls{"child_op"};
    const digest_text digest = seed_digest("lead_op_1700000000000000000_0", calls);
    CHECK(shown(digest, digest_policy::full).size() == 64);
    CHECK(shown(digest, digest_policy::short_) == "2c1acf4536eddbf7");
    CHECK(shown(digest, digest_policy::minimal) == "2c1acf45");
}
