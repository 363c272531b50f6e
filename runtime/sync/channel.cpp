// SPDX-License-Identifier: MIT
#include <tokengate/channel.hpp>

namespace tokengate::detail {

void throw_no_capacity() {
    throw configuration_error(
        "configuration_error: a channel has a capacity of 0: it needs room for at least 1 value");
}

void throw_channel_closed() {
    throw channel_closed(
        "channel_closed: the channel was closed before the value was sent: the sender still has "
        "it");
}

}  // namespace tokengate::detail
