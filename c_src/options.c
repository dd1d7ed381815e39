/* SPDX-License-Identifier: Apache-2.0 */
#include "options.h"

#include "base/log.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <uv.h>

#define DEFAULT_ALIVE_NAME "macula_nat"
#define HOST_SIZE          256

_Static_assert(sizeof(enum nat_rules) == sizeof(int), "read_choice() stores an int");

/* What is known while the command line is read and no longer needed afterwards. */
struct parse {
    struct options *o;
    const char *sname;
    const char *name;
    const char *cookie_file;
    const char *listen;
    uint64_t given; /* a bit for each row: what was said already is not looked for elsewhere */
    char *error;
    size_t error_size;
};

struct row {
    const char *name;
    const char *argument; /* NULL: a switch */
    /* Takes the value; returns as options_parse(). */
    int (*read)(struct parse *p, const struct row *row, const char *value);
    const char *help;
    size_t offset;     /* of a text in struct parse, of anything else in struct options */
    uint32_t min, max; /* of a number or choice */
    const char *(*choice)(int value);
};

__attribute__((format(printf, 2, 3))) static int fail(struct parse *p, const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vsnprintf(p->error, p->error_size, format, arguments);
    va_end(arguments);
    return -EINVAL;
}

static int fail_without_memory(struct parse *p)
{
    fail(p, "out of memory");
    return -ENOMEM;
}

/* An argument as it may be shown in an error: bounded, and on one line whatever it holds. */
struct shown {
    char text[80];
};

static struct shown shown(const char *argument)
{
    struct shown s = {""};

    log_escape(s.text, sizeof s.text, argument);
    return s;
}

static int read_text(struct parse *p, const struct row *row, const char *value)
{
    memcpy((char *)p + row->offset, &value, sizeof value);
    return 0;
}

/* A whole number within these bounds. Returns 0, -EINVAL if it is none, or -ERANGE. */
static int parse_number(const char *text, uint32_t min, uint32_t max, uint32_t *number)
{
    size_t digits = strspn(text, "0123456789");

    if (digits == 0 || text[digits] != 0)
        return -EINVAL;
    unsigned long long value = strtoull(text, NULL, 10); /* too large for its type: the maximum */
    if (value < min || value > max)
        return -ERANGE;
    *number = (uint32_t)value;
    return 0;
}

static int read_connect(struct parse *p, const struct row *row, const char *value)
{
    struct options *o = p->o;
    size_t len = strcspn(value, "=");
    uint32_t port = 0;

    if (value[len] == '=' && parse_number(value + len + 1, 1, UINT16_MAX, &port) != 0)
        return fail(p, "%s needs a port after the '=', not '%s'", row->name, shown(value).text);
    for (size_t i = 0; i < o->connect_count; i++)
        if (strlen(o->connect[i]) == len && memcmp(o->connect[i], value, len) == 0)
            return 0;
    if (o->connect_count == OPTIONS_CONNECT_MAX)
        return fail(p, "%s may be given for at most %d nodes", row->name, OPTIONS_CONNECT_MAX);
    o->connect[o->connect_count] = strndup(value, len);
    if (!o->connect[o->connect_count])
        return fail_without_memory(p);
    o->connect_port[o->connect_count++] = (uint16_t)port;
    return 0;
}

static int read_number(struct parse *p, const struct row *row, const char *value)
{
    uint32_t number;

    switch (parse_number(value, row->min, row->max, &number)) {
    case -EINVAL:
        return fail(p, "%s needs a whole number, not '%s'", row->name, shown(value).text);
    case -ERANGE:
        return fail(p, "%s must be %u to %u, not '%s'", row->name, row->min, row->max,
                    shown(value).text);
    }
    memcpy((char *)p->o + row->offset, &number, sizeof number);
    return 0;
}

/* The values of a choice as text: "a, b or c". */
struct choices {
    char text[80];
};

static struct choices choices_of(const struct row *row)
{
    struct choices c = {""};

    for (uint32_t value = row->min; value <= row->max; value++) {
        const char *before = value == row->min ? "" : value == row->max ? " or " : ", ";
        size_t len = strlen(c.text);

        snprintf(c.text + len, sizeof c.text - len, "%s%s", before, row->choice((int)value));
    }
    return c;
}

static const char *rules_choice(int value)
{
    return nat_rules_name((enum nat_rules)value);
}

static int read_choice(struct parse *p, const struct row *row, const char *value)
{
    for (int choice = (int)row->min; choice <= (int)row->max; choice++)
        if (strcmp(value, row->choice(choice)) == 0) {
            memcpy((char *)p->o + row->offset, &choice, sizeof choice);
            return 0;
        }
    return fail(p, "%s must be %s, not '%s'", row->name, choices_of(row).text, shown(value).text);
}

static int read_compatibility(struct parse *p, const struct row *row, const char *value)
{
    if (strcmp(value, COORDINATOR_COMPATIBLE) != 0)
        return fail(p, "%s must be %s, not '%s'", row->name, COORDINATOR_COMPATIBLE,
                    shown(value).text);
    p->o->coordinator.is_compatible = true;
    return 0;
}

static int read_switch(struct parse *p, const struct row *row, const char *value)
{
    bool on = true;

    (void)value;
    memcpy((char *)p->o + row->offset, &on, sizeof on);
    return 0;
}

static int read_help(struct parse *p, const struct row *row, const char *value)
{
    (void)p, (void)row, (void)value;
    return OPTIONS_ASKED_HELP;
}

static int read_version(struct parse *p, const struct row *row, const char *value)
{
    (void)p, (void)row, (void)value;
    return OPTIONS_ASKED_VERSION;
}

#define OPTION(field)      offsetof(struct options, field)
#define COORDINATOR(field) offsetof(struct options, coordinator.field)

/* clang-format off */
static const struct row rows[] = {
    {"--sname", "NAME", read_text,
     "short node name, NAME or NAME@HOST (default " DEFAULT_ALIVE_NAME ")",
     offsetof(struct parse, sname), 0, 0, NULL},
    {"--name", "NAME@HOST", read_text, "long node name; HOST is a domain name or an address",
     offsetof(struct parse, name), 0, 0, NULL},
    {"--cookie-file", "FILE", read_text,
     "where the cookie is (default ~/.erlang.cookie; MACULA_NAT_COOKIE comes first)",
     offsetof(struct parse, cookie_file), 0, 0, NULL},
    {"--listen", "ADDR", read_text, "IPv4 or IPv6 address to listen on (default all interfaces)",
     offsetof(struct parse, listen), 0, 0, NULL},
    {"--port", "N", read_number, "port to listen on, 0 for any", OPTION(port), 0, 65535, NULL},
    {"--connect", "NODE[=PORT]", read_connect,
     "node to stay connected to (without PORT its EPMD is asked); may be repeated", 0, 0, 0, NULL},
    {"--no-epmd", NULL, read_switch,
     "publish no name: others reach the node by its port, or it connects to them",
     OPTION(no_epmd), 0, 0, NULL},
    {"--punch-timeout-ms", "N", read_number, "wait for the result of a punch attempt",
     COORDINATOR(nat.punch_timeout_ms), 1, 3600000, NULL},
    {"--max-punch-attempts", "N", read_number, "retries after the first attempt",
     COORDINATOR(nat.max_punch_attempts), 0, 1000, NULL},
    {"--coordination-delay-ms", "N", read_number, "from telling the peers to the punch",
     COORDINATOR(nat.coordination_delay_ms), 0, 60000, NULL},
    {"--lookup-timeout-ms", "N", read_number, "wait for a profile before it counts as unknown",
     COORDINATOR(lookup_timeout_ms), 1, 60000, NULL},
    {"--profile-cache-ttl-ms", "N", read_number, "keep a profile that was looked up, 0 for never",
     COORDINATOR(profile_cache_ttl_ms), 0, 3600000, NULL},
    {"--session-ttl-s", "N", read_number, "age at which a session is dropped",
     COORDINATOR(nat.session_ttl_s), 1, 86400, NULL},
    {"--max-sessions", "N", read_number, "live sessions kept",
     COORDINATOR(nat.max_sessions), 1, 10000000, NULL},
    {"--strategy-rules", "RULES", read_choice, "rules that choose the strategy",
     COORDINATOR(nat.rules), 0, NAT_RULE_SETS - 1, rules_choice},
    {"--compatibility", "RELEASE", read_compatibility,
     "answer as the module of " COORDINATOR_COMPATIBLE " did: its rules, and nothing read from the DHT",
     0, 0, 0, NULL},
    {"--log-level", "LEVEL", read_choice, "least level that is logged",
     OPTION(log_level), LOG_ERR, LOG_DEBUG, log_level_name},
    {"--exit-on-stdin-eof", NULL, read_switch, "shut down when stdin is closed",
     OPTION(exit_on_stdin_eof), 0, 0, NULL},
    {"--help", NULL, read_help, "print this text and exit", 0, 0, 0, NULL},
    {"--version", NULL, read_version, "print the version and exit", 0, 0, 0, NULL},
};
/* clang-format on */
#define ROW_COUNT (sizeof rows / sizeof rows[0])

static void set_defaults(struct options *o)
{
    memset(o, 0, sizeof *o);
    coordinator_options_init(&o->coordinator);
    o->log_level = LOG_INFO;
    o->listen.ss_family = AF_UNSPEC;
}

/* The values that an option may have, and its default, where the table knows them. */
static void print_values(FILE *out, const struct row *row, const struct options *defaults)
{
    uint32_t value;

    if (row->read != read_number && row->read != read_choice)
        return;
    memcpy(&value, (const char *)defaults + row->offset, sizeof value);
    if (row->read == read_choice)
        fprintf(out, " (%s; default %s)", choices_of(row).text, row->choice((int)value));
    else
        fprintf(out, " (%u to %u, default %u)", row->min, row->max, value);
}

void options_print_help(FILE *out)
{
    struct options defaults;

    set_defaults(&defaults);
    fputs("Usage: macula_nat_cnode [OPTION]...\n"
          "A hidden Erlang node that coordinates NAT hole punching.\n\n",
          out);
    for (const struct row *row = rows; row < rows + ROW_COUNT; row++) {
        char usage[64];

        snprintf(usage, sizeof usage, "%s %s", row->name, row->argument ? row->argument : "");
        /* A usage wider than its column has its help on the next line. */
        fprintf(out, "  %-28s%s%s", usage,
                strlen(usage) > 27 ? "\n                              " : "", row->help);
        print_values(out, row, &defaults);
        fputc('\n', out);
    }
    fputs("\nAn option's value is the next argument or follows a '='. Every option can also be "
          "given in the\n"
          "environment, --port as MACULA_NAT_PORT and so on: several nodes of MACULA_NAT_CONNECT "
          "have commas\n"
          "between them, a switch is true or false, and an empty variable counts as none. The "
          "command line\n"
          "wins. EPMD is found with ERL_EPMD_PORT and ERL_EPMD_ADDRESS.\n"
          "Exit error: 0 shut down, 1 ended by another process, 64 wrong usage, 69 name or "
          "port taken\n"
          "or no EPMD, 71 no memory or file descriptors, 77 no usable cookie.\n",
          out);
}

/*
 * Checks "alive@host", or only "alive" where *host may be missing (then it is set to NULL). The
 * rules are those of net_kernel and inet_tcp_dist (OTP): a short name has no dot in its host, the
 * host of a long name has a dot or is an address, as no node with long names would connect to it
 * otherwise.
 */
static int check_node_name(struct parse *p, const char *option, const char *name, bool is_long,
                           const char **host)
{
    static const char alive_characters[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-";
    size_t alive = strspn(name, alive_characters);
    unsigned char address[sizeof(struct in6_addr)];

    *host = NULL;
    if (strlen(name) >= OPTIONS_NODE_NAME_SIZE)
        return fail(p, "%s: a node name has at most %d characters", option,
                    OPTIONS_NODE_NAME_SIZE - 1);
    if (alive == 0 || (name[alive] != '@' && name[alive] != 0))
        return fail(p, "%s: '%s' is no node name: letters, digits, '_' and '-' before the '@'",
                    option, shown(name).text);
    if (name[alive] == 0)
        return 0;
    *host = name + alive + 1;
    if (**host == 0)
        return fail(p, "%s: '%s' has no host after the '@'", option, shown(name).text);
    for (const char *s = *host; *s != 0; s++)
        if (*s <= ' ' || *s > '~' || *s == '@')
            return fail(p, "%s: '%s' has a wrong character in its host", option, shown(name).text);
    if (!is_long && strchr(*host, '.'))
        return fail(p, "%s: '%s' has a dot in its host, which needs long names (--name)", option,
                    shown(name).text);
    if (is_long && !strchr(*host, '.') && inet_pton(AF_INET6, *host, address) != 1)
        return fail(p, "%s: '%s' has no dot in its host, which long names (--name) need", option,
                    shown(name).text);
    return 0;
}

/* Sets o->node_name, with the host name of this machine where none was given. */
static int complete_node_name(struct parse *p)
{
    struct options *o = p->o;
    const char *option = p->name ? "--name" : "--sname";
    const char *name = p->name ? p->name : p->sname ? p->sname : DEFAULT_ALIVE_NAME;
    char machine[HOST_SIZE] = "";
    const char *host;

    if (p->name && p->sname)
        return fail(p, "--sname and --name are given: a node has one of them");
    o->long_names = p->name;
    int error = check_node_name(p, option, name, o->long_names, &host);
    if (error != 0)
        return error;
    if (host) {
        snprintf(o->node_name, sizeof o->node_name, "%s", name);
        return 0;
    }
    if (gethostname(machine, sizeof machine - 1) != 0 || machine[0] == 0)
        return fail(p, "%s: this machine has no host name: give NAME@HOST", option);
    if (!o->long_names)
        machine[strcspn(machine, ".")] = 0;
    else if (!strchr(machine, '.'))
        return fail(p, "--name: this machine's host name has no domain: give NAME@HOST");
    if (strlen(name) + 1 + strlen(machine) >= sizeof o->node_name)
        return fail(p, "%s: a node name has at most %d characters with its host", option,
                    OPTIONS_NODE_NAME_SIZE - 1);
    strcpy(o->node_name, name);
    strcat(o->node_name, "@");
    strcat(o->node_name, machine);
    return check_node_name(p, option, o->node_name, o->long_names, &host);
}

static int check_connect(struct parse *p)
{
    const struct options *o = p->o;
    const char *host;

    for (size_t i = 0; i < o->connect_count; i++) {
        const char *name = o->connect[i];
        int error = check_node_name(p, "--connect", name, o->long_names, &host);

        if (error != 0)
            return error;
        if (!host)
            return fail(p, "--connect: '%s' needs a host: NAME@HOST", shown(name).text);
        if (strcmp(name, o->node_name) == 0)
            return fail(p, "--connect: '%s' is this node itself", shown(name).text);
    }
    return 0;
}

static int complete_listen(struct parse *p)
{
    struct options *o = p->o;
    int port = (int)o->port;

    if (!p->listen)
        return 0;
    if (uv_ip4_addr(p->listen, port, (struct sockaddr_in *)&o->listen) != 0 &&
        uv_ip6_addr(p->listen, port, (struct sockaddr_in6 *)&o->listen) != 0)
        return fail(p, "--listen needs an IPv4 or IPv6 address, not '%s'", shown(p->listen).text);
    return 0;
}

/* The row whose name is the `len` characters at `name`. */
static const struct row *find_row(const char *name, size_t len)
{
    for (const struct row *row = rows; row < rows + ROW_COUNT; row++)
        if (strlen(row->name) == len && memcmp(row->name, name, len) == 0)
            return row;
    return NULL;
}

static uint64_t bit_of(const char *name)
{
    return UINT64_C(1) << (find_row(name, strlen(name)) - rows);
}

/* Takes the option at argv[*i] with its value, and moves *i to the last argument it used. */
static int parse_argument(struct parse *p, int argc, char **argv, int *i)
{
    const char *argument = argv[*i];
    const struct row *row = find_row(argument, strcspn(argument, "="));
    const char *equals = strchr(argument, '=');
    const char *value = equals ? equals + 1 : NULL;

    if (!row)
        return fail(p, argument[0] == '-' ? "unknown option '%s'" : "unexpected argument '%s'",
                    shown(argument).text);
    if (!row->argument && value)
        return fail(p, "%s takes no value", row->name);
    if (row->argument && !value) {
        /* A forgotten value must not swallow the next option; one like that can follow a '='. */
        if (*i + 1 < argc && strncmp(argv[*i + 1], "--", 2) != 0)
            value = argv[++*i];
    }
    if (row->argument && (!value || value[0] == 0))
        return fail(p, "%s needs a value: %s", row->name, row->argument);
    p->given |= bit_of(row->name);
    return row->read(p, row, value);
}

/* --- the environment --- */

#define VARIABLE_SIZE 48

/* MACULA_NAT_PORT for --port. */
static void name_variable(char variable[static VARIABLE_SIZE], const char *option)
{
    char *end = variable + snprintf(variable, VARIABLE_SIZE, "MACULA_NAT_%s", option + 2);

    for (char *s = variable; s < end; s++)
        *s = (char)(*s == '-' ? '_' : *s >= 'a' && *s <= 'z' ? *s - 'a' + 'A' : *s);
}

static int read_list(struct parse *p, const struct row *row, const char *value)
{
    char *text = strdup(value), *rest = text;
    int error = 0;

    if (!text)
        return fail_without_memory(p);
    for (char *name; error == 0 && (name = strsep(&rest, ",")) != NULL;)
        error = name[0] != 0 ? row->read(p, row, name)
                             : fail(p, "%s has a comma with no name beside it", row->name);
    free(text);
    return error;
}

static int read_variable(struct parse *p, const struct row *row)
{
    char variable[VARIABLE_SIZE];

    if (row->read == read_help || row->read == read_version)
        return 0;
    name_variable(variable, row->name);
    const char *value = getenv(variable);
    if (!value || value[0] == 0)
        return 0;
    p->given |= bit_of(row->name);
    struct row named = *row;
    named.name = variable; /* in what is said of it */
    if (row->read == read_connect)
        return read_list(p, &named, value);
    if (row->argument)
        return row->read(p, &named, value);
    if (strcmp(value, "true") != 0 && strcmp(value, "false") != 0)
        return fail(p, "%s must be true or false, not '%s'", variable, shown(value).text);
    return strcmp(value, "true") == 0 ? row->read(p, &named, value) : 0;
}

/* What the command line has not said. */
static int parse_environment(struct parse *p)
{
    const uint64_t names = bit_of("--sname") | bit_of("--name");
    int error = 0;

    if (p->given & names)
        p->given |= names;
    for (size_t i = 0; i < ROW_COUNT && error == 0; i++)
        if (!(p->given & UINT64_C(1) << i))
            error = read_variable(p, &rows[i]);
    return error;
}

/* The old rules come with --compatibility, unless others are asked for beside it or where it counts
 * for more. */
static void settle_rules(struct parse *p)
{
    if (!p->o->coordinator.is_compatible || (p->given & bit_of("--strategy-rules")))
        return;
    p->o->coordinator.nat.rules = NAT_RULES_V0_14_3;
    p->given |= bit_of("--strategy-rules");
}

int options_parse(struct options *o, int argc, char **argv, char *error, size_t error_size)
{
    struct parse p = {.o = o, .error = error, .error_size = error_size};
    int result = 0;

    set_defaults(o);
    o->connect = calloc(OPTIONS_CONNECT_MAX, sizeof *o->connect);
    if (!o->connect)
        return fail_without_memory(&p);

    for (int i = 1; i < argc && result == 0; i++)
        result = parse_argument(&p, argc, argv, &i);
    settle_rules(&p);
    if (result == 0)
        result = parse_environment(&p);
    settle_rules(&p);
    o->cookie_file = p.cookie_file;
    if (result == 0)
        result = complete_node_name(&p);
    if (result == 0)
        result = check_connect(&p);
    if (result == 0)
        result = complete_listen(&p);
    o->coordinator.preferred_nodes = o->connect;
    o->coordinator.preferred_count = o->connect_count;
    if (result != 0)
        options_free(o);
    return result;
}

void options_free(struct options *o)
{
    for (size_t i = 0; i < o->connect_count; i++)
        free((char *)o->connect[i]);
    free(o->connect);
    o->connect = NULL;
    o->connect_count = 0;
}
