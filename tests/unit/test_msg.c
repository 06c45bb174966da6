/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * test_msg.c: the table of messages is complete and consistent, and says what actors rely on.
 */
#include "mailbox/msg.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#define ALL_CLASSES ((1U << ACTOR_CLASS_COUNT) - 1)

/* The bytes behind kind, from, region and ticket. */
#define PAYLOAD_BYTES 24

static const size_t payload_bytes[MSG_KIND_COUNT] = {
#define X(kind, payload, from, to, answer) [MSG_##kind] = sizeof(struct msg_##payload),
    MSG_LIST(X)
#undef X
};

static const struct msg_rule *rule_of(unsigned kind)
{
    return &msg_rules[kind];
}

static void every_message_has_name_sender_and_receiver(void **state)
{
    (void)state;
    for (unsigned kind = MSG_NONE + 1; kind < MSG_KIND_COUNT; kind++) {
        const struct msg_rule *rule = rule_of(kind);

        assert_non_null(rule->name);
        assert_true(strlen(rule->name) > 0);
        assert_int_not_equal(rule->from, A_NOBODY);
        assert_int_not_equal(rule->to, A_NOBODY);
        assert_int_equal(rule->from & ~ALL_CLASSES, 0);
        assert_int_equal(rule->to & ~ALL_CLASSES, 0);
        assert_true(payload_bytes[kind] > 0 && payload_bytes[kind] <= PAYLOAD_BYTES);
    }
    assert_int_equal(sizeof(struct msg), offsetof(struct msg, none) + PAYLOAD_BYTES);
}

static void names_are_those_of_the_kinds(void **state)
{
    (void)state;
    assert_string_equal(rule_of(MSG_NONE)->name, "NONE");
    assert_string_equal(rule_of(MSG_IO_READ)->name, "IO_READ");
    assert_string_equal(rule_of(MSG_STOPPED)->name, "STOPPED");
    assert_string_equal(rule_of(MSG_KIND_COUNT - 1)->name, "PRESS_CTRL_ALT_DEL");
    for (unsigned a = 0; a < MSG_KIND_COUNT; a++) {
        for (unsigned b = 0; b < a; b++) {
            assert_string_not_equal(rule_of(a)->name, rule_of(b)->name);
        }
    }
}

static void answers_go_the_other_way(void **state)
{
    unsigned answered = 0;

    (void)state;
    for (unsigned kind = MSG_NONE + 1; kind < MSG_KIND_COUNT; kind++) {
        const struct msg_rule *question = rule_of(kind);

        if (question->answer == MSG_NONE) {
            continue;
        }
        assert_true((unsigned)question->answer < MSG_KIND_COUNT);
        const struct msg_rule *answer = rule_of(question->answer);
        assert_int_equal(answer->from, question->to);
        assert_int_equal(answer->to, question->from);
        assert_int_equal(answer->answer, MSG_NONE);
        answered++;
    }
    assert_int_equal(answered, 3); /* IO_READ, IO_WRITE_ACKED, STOP */
}

/* actors/actor.h: vCPUs wait for devices, the supervisor for both, nobody the other way round. */
static void waiting_has_no_cycle(void **state)
{
    (void)state;
    for (unsigned kind = MSG_NONE + 1; kind < MSG_KIND_COUNT; kind++) {
        const struct msg_rule *rule = rule_of(kind);

        if (rule->answer == MSG_NONE) {
            continue;
        }
        assert_int_equal(rule->from & A_DEVICES, 0);
        if ((rule->from & A_VCPU) != 0) {
            assert_int_equal(rule->from, A_VCPU);
            assert_int_equal(rule->to & ~A_DEVICES, 0);
        }
    }
}

static void only_what_the_table_says_is_allowed(void **state)
{
    (void)state;
    for (unsigned kind = 0; kind < MSG_KIND_COUNT; kind++) {
        for (unsigned from = 0; from < ACTOR_CLASS_COUNT; from++) {
            for (unsigned to = 0; to < ACTOR_CLASS_COUNT; to++) {
                bool in_table = kind != MSG_NONE && ((rule_of(kind)->from >> from) & 1) != 0 &&
                                ((rule_of(kind)->to >> to) & 1) != 0;

                assert_int_equal(
                    msg_allowed((enum msg_kind)kind, (enum actor_class)from, (enum actor_class)to),
                    in_table);
            }
        }
    }
    assert_false(msg_allowed(MSG_KIND_COUNT, ACTOR_VCPU, ACTOR_SERIAL));
    assert_false(msg_allowed((enum msg_kind)0xffff, ACTOR_VCPU, ACTOR_SERIAL));
    /* A few by hand, so that the table cannot just agree with itself. */
    assert_true(msg_allowed(MSG_IO_READ, ACTOR_VCPU, ACTOR_BLK));
    assert_false(msg_allowed(MSG_IO_READ, ACTOR_BLK, ACTOR_VCPU));
    assert_true(msg_allowed(MSG_GUEST_RESET, ACTOR_I8042, ACTOR_SUPERVISOR));
    assert_false(msg_allowed(MSG_GUEST_RESET, ACTOR_SERIAL, ACTOR_SUPERVISOR));
    assert_true(msg_allowed(MSG_STREAM_END, ACTOR_SERIAL, ACTOR_SUPERVISOR));
    assert_false(msg_allowed(MSG_RUN, ACTOR_SUPERVISOR, ACTOR_SERIAL));
}

/* Every pair of classes, written down independently of the table. */
static void lanes_are_where_messages_are(void **state)
{
    static const unsigned receivers_of[ACTOR_CLASS_COUNT] = {
        [ACTOR_SUPERVISOR] = A_VCPU | A_DEVICES, [ACTOR_VCPU] = A_SUPERVISOR | A_DEVICES,
        [ACTOR_SERIAL] = A_SUPERVISOR | A_VCPU,  [ACTOR_I8042] = A_SUPERVISOR | A_VCPU,
        [ACTOR_BLK] = A_SUPERVISOR | A_VCPU,     [ACTOR_VSOCK] = A_SUPERVISOR | A_VCPU,
    };

    (void)state;
    for (unsigned from = 0; from < ACTOR_CLASS_COUNT; from++) {
        for (unsigned to = 0; to < ACTOR_CLASS_COUNT; to++) {
            assert_int_equal(msg_lane_needed((enum actor_class)from, (enum actor_class)to),
                             (receivers_of[from] >> to) & 1);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_message_has_name_sender_and_receiver),
        cmocka_unit_test(names_are_those_of_the_kinds),
        cmocka_unit_test(answers_go_the_other_way),
        cmocka_unit_test(waiting_has_no_cycle),
        cmocka_unit_test(only_what_the_table_says_is_allowed),
        cmocka_unit_test(lanes_are_where_messages_are),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
