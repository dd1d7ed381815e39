/* SPDX-License-Identifier: Apache-2.0 */
/* The process `net_kernel`, which answers what other nodes ask it: net_adm:ping waits for that for
 * ever. */
#ifndef OTP_NET_KERNEL_H
#define OTP_NET_KERNEL_H

#include "otp/gen_server.h"

/* Registers it; it ends with gen_server_stop. Returns 0 or -ENOMEM. */
int net_kernel_start(struct gen_server *gs, struct node *node);

#endif
