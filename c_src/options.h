/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The command line, and the same options in the environment. One table in options.c names every
 * option with its argument, default, bounds and help; the parser and --help both read that table,
 * and the manual page is made from --help. Defaults are those of the room that uses the option.
 * Parsing does no input or output; of the machine it only asks for the environment and, to complete
 * a node name, the host name.
 *
 * The strings in `struct options` belong to argv and the environment, which must outlive it; the
 * list `connect` and its names are owned by it and given back by options_free(). Numbers are within
 * the bounds of the table once options_parse() has returned 0.
 */
#ifndef OPTIONS_H
#define OPTIONS_H

#include "macula/coordinator_options.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/socket.h>

/* What options_parse() returns for --help and --version. */
#define OPTIONS_ASKED_HELP    1
#define OPTIONS_ASKED_VERSION 2

/* Nodes that --connect may name. */
#define OPTIONS_CONNECT_MAX 64

/* Room for a node name, which is an atom of at most 255 characters, and the ending 0. */
#define OPTIONS_NODE_NAME_SIZE 256

/* Room that always holds the error of options_parse(). */
#define OPTIONS_ERROR_SIZE 512

struct options {
    char node_name[OPTIONS_NODE_NAME_SIZE]; /* alive name, '@' and host */
    bool long_names;                        /* given with --name */
    const char *cookie_file;                /* NULL: not given */
    struct sockaddr_storage listen;         /* port set; AF_UNSPEC: all interfaces, see `port` */
    const char **connect;                   /* full node names, each once; owned */
    uint16_t connect_port[OPTIONS_CONNECT_MAX]; /* of each; 0: its EPMD knows */
    size_t connect_count;
    uint32_t port; /* 0: any */
    struct coordinator_options coordinator;
    int log_level; /* LOG_ERR to LOG_DEBUG of syslog.h */
    bool exit_on_stdin_eof;
    bool no_epmd; /* publish no name */
};

/*
 * Reads the command line and the environment into `o`, which needs no initialisation. Returns 0,
 * OPTIONS_ASKED_HELP or OPTIONS_ASKED_VERSION, or a negative errno with one line (no newline, at
 * most error_size - 1 bytes) in `error`: -EINVAL for a wrong command line, -ENOMEM. Call
 * options_free() after 0 only; otherwise `o` owns nothing.
 */
int options_parse(struct options *o, int argc, char **argv, char *error, size_t error_size);

/* Gives back what `o` owns. */
void options_free(struct options *o);

/* Writes the text of --help. */
void options_print_help(FILE *out);

#endif
