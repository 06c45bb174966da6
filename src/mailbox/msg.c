/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * msg.c: MSG_LIST as a table.
 *
 * Thread: any; read only. Never blocks.
 */
#include "mailbox/msg.h"

const struct msg_rule msg_rules[MSG_KIND_COUNT] = {
    [MSG_NONE] = {"NONE", A_NOBODY, A_NOBODY, MSG_NONE},
#define X(kind, payload, from, to, answer) [MSG_##kind] = {#kind, from, to, MSG_##answer},
    MSG_LIST(X)
#undef X
};

bool msg_allowed(enum msg_kind kind, enum actor_class from, enum actor_class to)
{
    if ((unsigned)kind >= MSG_KIND_COUNT) {
        return false;
    }
    return (msg_rules[kind].from & (1U << from)) != 0 && (msg_rules[kind].to & (1U << to)) != 0;
}

bool msg_lane_needed(enum actor_class from, enum actor_class to)
{
    for (unsigned kind = 0; kind < MSG_KIND_COUNT; kind++) {
        if (msg_allowed((enum msg_kind)kind, from, to)) {
            return true;
        }
    }
    return false;
}
