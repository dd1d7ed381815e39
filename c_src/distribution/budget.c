/* SPDX-License-Identifier: Apache-2.0 */
#include "distribution/budget.h"

#include <utlist.h>

/* --- input --- */

static void count_input(struct connection *c, size_t now)
{
    c->node->budget.input += now - c->budget.input;
    c->budget.input = now;
}

void budget_count_input(struct connection *c)
{
    if (c->state != CONNECTION_CLOSED)
        count_input(c, c->input.bytes.capacity);
}

void budget_forget_input(struct connection *c)
{
    count_input(c, 0);
}

/* The first of those that have the most: it has been there the longest. */
static struct connection *largest_input(struct node *node)
{
    struct connection *c, *largest = NULL;

    DL_FOREACH (node->connections, c)
        if (c->budget.input > (largest ? largest->budget.input : 0))
            largest = c;
    return largest;
}

bool budget_make_room_for_input(struct connection *c, size_t size)
{
    struct node *node = c->node;

    while (node->budget.input + size > INPUT_TOTAL_MAX) {
        struct connection *largest = largest_input(node);
        if (!largest)
            break;
        node->counters.input_limit++;
        connection_doom(largest, "all unfinished input together is over the limit, and it has the "
                                 "most");
        buffer_free(&largest->input.bytes);
        budget_count_input(largest);
    }
    return !c->doomed;
}

/* --- monitors and links --- */

static void keep_to_total_of_holds(struct connection *c, size_t size)
{
    struct node *node = c->node;
    struct connection *other, *largest = c;
    size_t leaving = 0; /* with this turn */

    DL_FOREACH (node->connections, other) {
        if (other->doomed)
            leaving += other->budget.holds;
        else if (other->budget.holds > largest->budget.holds)
            largest = other;
    }
    if (node->budget.holds - leaving + size <= HOLDS_TOTAL_MAX)
        return;
    node->counters.monitors_limit++;
    connection_doom(largest, "all monitors and links together are over the limit, and it has the "
                             "most");
}

bool budget_add_hold(struct connection *c, size_t size)
{
    if (c->holds >= HOLDS_MAX)
        connection_doom(c, "it has too many monitors and links");
    else if (c->node->budget.holds + size > HOLDS_TOTAL_MAX)
        keep_to_total_of_holds(c, size);
    if (c->doomed)
        return false;
    c->holds++;
    c->budget.holds += size;
    c->node->budget.holds += size;
    return true;
}

/* They go with the connection, after it has been closed. */
void budget_remove_hold(struct connection *c, size_t size)
{
    c->holds--;
    c->budget.holds -= size;
    c->node->budget.holds -= size;
}
