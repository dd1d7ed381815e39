/* SPDX-License-Identifier: Apache-2.0 */
#include "distribution/budget.h"

#include "distribution/node.h"

#include <utlist.h>

/* What is being closed has been taken from the total already (budget_leave). */
static void count(const struct connection *c, size_t *own, size_t *total, size_t now)
{
    if (c->state == CONNECTION_CLOSED)
        return;
    *total += now - *own;
    *own = now;
}

/* --- input --- */

void budget_count_input(struct connection *c)
{
    count(c, &c->budget.input, &c->node->budget.input, c->in.capacity);
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
        buffer_free(&largest->in);
        budget_count_input(largest);
    }
    return !c->doomed;
}

/* --- output --- */

void budget_count_output(struct connection *c)
{
    /* Memory that is kept from one turn to the next holds nothing that is not taken. */
    size_t now = connection_pending(c) > 0 ? c->out.capacity + c->sending.capacity : 0;

    count(c, &c->budget.output, &c->node->budget.output, now);
}

static struct connection *largest_output(struct node *node)
{
    struct connection *c, *largest = NULL;

    DL_FOREACH (node->connections, c)
        if (!c->doomed && c->budget.output > (largest ? largest->budget.output : 0))
            largest = c;
    return largest;
}

void budget_check_output(struct connection *c)
{
    struct node *node = c->node;

    budget_count_output(c);
    while (node->budget.output > OUTPUT_TOTAL_MAX) {
        struct connection *largest = largest_output(node);
        if (!largest)
            break;
        node->counters.output_limit++;
        connection_doom(largest, "all output together is over the limit, and it has the most");
        buffer_free(&largest->out);
        budget_count_output(largest);
    }
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

bool budget_take_hold(struct connection *c, size_t size)
{
    if (c->node->budget.holds + size > HOLDS_TOTAL_MAX)
        keep_to_total_of_holds(c, size);
    if (c->doomed)
        return false;
    c->budget.holds += size;
    c->node->budget.holds += size;
    return true;
}

/* They go with the connection, after it has been closed. */
void budget_give_hold(struct connection *c, size_t size)
{
    c->budget.holds -= size;
    c->node->budget.holds -= size;
}

void budget_leave(struct connection *c)
{
    count(c, &c->budget.input, &c->node->budget.input, 0);
    count(c, &c->budget.output, &c->node->budget.output, 0);
}
