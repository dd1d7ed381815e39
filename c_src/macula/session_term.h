/* SPDX-License-Identifier: Apache-2.0 */
/* Sessions and punches as terms: punch_session() of the documentation, and PUNCH_COORDINATE. */
#ifndef MACULA_SESSION_TERM_H
#define MACULA_SESSION_TERM_H

#include "base/buffer.h"
#include "macula_nat.h"

const char *strategy_name(enum nat_strategy strategy);
/* The map of a session; the key `result` is there only once it has ended. */
void session_put(struct buffer *b, const struct nat_session_view *session);
/* The map of a punch, of a NAT_COORDINATE action. Every key is always there. */
void coordinate_put(struct buffer *b, const struct nat_action *action);

#endif
