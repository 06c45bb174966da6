/* SPDX-License-Identifier: MIT OR Apache-2.0 */
/*
 * policy.c: names and numbers of policies. See policy.h.
 */
#include "actors/policy.h"

#include <stdlib.h>

static const char *const value_texts[POLICY_VALUE_COUNT] = {
#define X(id, text) [POLICY_##id] = (text),
    POLICY_VALUE_LIST(X)
#undef X
};

const char *policy_value_text(enum policy_value value)
{
    return (unsigned)value < POLICY_VALUE_COUNT ? value_texts[value] : "?";
}

void policy_add_number(struct policy_numbers *numbers, enum policy_value value, uint64_t number)
{
    for (unsigned i = 0; i < numbers->count[value]; i++) {
        if (numbers->numbers[value][i] == number) {
            return;
        }
    }
    if (numbers->count[value] >= POLICY_NUMBERS_MAX) {
        abort(); /* more actors than ACTORS_MAX: our bug */
    }
    numbers->numbers[value][numbers->count[value]++] = number;
}
