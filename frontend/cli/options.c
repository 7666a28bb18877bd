/* options.c - reads the command line by the rows of options.def. */
#include "cli.h"
#include "../outfile.h"
#include <errno.h>
#include <math.h>
#include <stdlib.h>

const VerbInfo verb_info[VERB_COUNT] = {
#define VERB(id, name, arguments, least, most, help) {name, arguments, least, most, help},
#include "options.def"
};

const OptionInfo option_info[OPT_COUNT] = {
#define OPTION(id, name, shortname, verbs, argument, dflt, help) {name, shortname, verbs, argument, dflt, help},
#include "options.def"
};

/* Is `word` one of the blank-separated words of `list`? */
static bool has_word(const char *list, const char *word) {
  size_t n = strlen(word);
  for (const char *p = list; (p = strstr(p, word)) != NULL; p += n)
    if ((p == list || p[-1] == ' ') && (p[n] == ' ' || p[n] == 0)) return true;
  return false;
}

bool option_takes(OptionId id, Verb verb) { return has_word(option_info[id].verbs, verb_info[verb].name); }

/* Edit distance with transpositions, of words shorter than 32; 99 for longer ones. */
static int distance(const char *a, const char *b) {
  int na = (int)strlen(a), nb = (int)strlen(b), d[32][32];
  if (na > 31 || nb > 31) return 99;
  for (int i = 0; i <= na; i++)
    for (int j = 0; j <= nb; j++) {
      if (i == 0 || j == 0) {
        d[i][j] = i + j;
        continue;
      }
      d[i][j] = MIN(MIN(d[i - 1][j], d[i][j - 1]) + 1, d[i - 1][j - 1] + (a[i - 1] != b[j - 1]));
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) d[i][j] = MIN(d[i][j], d[i - 2][j - 2] + 1);
    }
  return d[na][nb];
}

const char *cli_nearest(const char *word, const char *const *words, int n) {
  const char *best = NULL;
  int least = 3;
  for (int i = 0; i < n; i++) {
    int d = strlen(word) > 2 && !strncmp(words[i], word, strlen(word)) ? 1 : distance(word, words[i]);
    if (d < least) {
      least = d;
      best = words[i];
    }
  }
  return best;
}

static _Noreturn void unknown_option(Cli *cli, const char *word, size_t n) {
  const char *names[OPT_COUNT], *name = ctx_printf(cli->c, "%.*s", (int)n, word);
  int count = 0;
  for (int i = 0; i < OPT_COUNT; i++)
    if (option_takes((OptionId)i, cli->verb)) names[count++] = option_info[i].name;
  const char *verb = verb_info[cli->verb].name, *bare = name + strspn(name, "-"),
             *near = cli_nearest(bare, names, count);
  const char *hint = near ? ctx_printf(cli->c, "did you mean --%s?", near) : ctx_printf(cli->c, "dlc help %s", verb);
  diag_fail(cli->c, E0201, NULL, hint, "dlc %s has no option %s", verb, diag_quote(cli->c, name));
}

/* An option's row from its spelling (n bytes), or OPT_COUNT. */
static OptionId find_option(const Cli *cli, const char *name, size_t n, bool is_short) {
  for (int i = 0; i < OPT_COUNT; i++) {
    const OptionInfo *o = &option_info[i];
    bool same = is_short ? o->shortname == *name : strlen(o->name) == n && !memcmp(o->name, name, n);
    if (same && option_takes((OptionId)i, cli->verb)) return (OptionId)i;
  }
  return OPT_COUNT;
}

static void add_use(Cli *cli, OptionId id, const char *value) {
  vec_push(cli->c, &cli->uses, ((OptionUse){id, value}));
}

/* The value of a required argument: attached, or the next word. */
static const char *required(Cli *cli, OptionId id, const char *attached, char **argv, int *i) {
  if (attached) return attached;
  if (argv[*i + 1]) return argv[++*i];
  diag_fail(cli->c, E0202, NULL, NULL, "option --%s wants a value: --%s%s", option_info[id].name, option_info[id].name,
            option_info[id].argument);
}

static void parse_long(Cli *cli, char **argv, int *i) {
  const char *name = argv[*i] + 2, *equals = strchr(name, '=');
  size_t n = equals ? (size_t)(equals - name) : strlen(name);
  OptionId id = find_option(cli, name, n, false);
  if (id == OPT_COUNT) unknown_option(cli, argv[*i], n + 2);
  const char *argument = option_info[id].argument, *attached = equals ? equals + 1 : NULL;
  if (!*argument && attached) diag_fail(cli->c, E0202, NULL, NULL, "option --%s takes no value", option_info[id].name);
  add_use(cli, id, *argument == '=' ? required(cli, id, attached, argv, i) : attached);
}

/* -q, -vv, -j4, -j 4, -o FILE */
static void parse_short(Cli *cli, char **argv, int *i) {
  for (const char *p = argv[*i] + 1; *p; p++) {
    OptionId id = find_option(cli, p, 1, true);
    if (id == OPT_COUNT) unknown_option(cli, argv[*i], strlen(argv[*i]));
    if (*option_info[id].argument == '=') {
      add_use(cli, id, required(cli, id, p[1] ? p + 1 : NULL, argv, i));
      return;
    }
    add_use(cli, id, NULL);
  }
}

static Verb parse_verb(Cli *cli, const char *word) {
  const char *names[VERB_COUNT];
  for (int i = 0; i < VERB_COUNT; i++) {
    names[i] = verb_info[i].name;
    if (!strcmp(word, names[i])) return (Verb)i;
  }
  if (!strcmp(word, "--help") || !strcmp(word, "-h")) return VERB_HELP;
  if (!strcmp(word, "--version")) return VERB_VERSION;
  const char *near = cli_nearest(word, names, VERB_COUNT);
  diag_fail(cli->c, E0201, NULL, near ? ctx_printf(cli->c, "did you mean dlc %s?", near) : "dlc help",
            "there is no verb %s", diag_quote(cli->c, word));
}

static void check_arguments(Cli *cli) {
  const VerbInfo *v = &verb_info[cli->verb];
  if (cli_has(cli, OPT_HELP)) return;
  if (cli->args.n < v->least)
    diag_fail(cli->c, E0203, NULL, ctx_printf(cli->c, "dlc help %s", v->name), "usage: dlc %s [options] %s", v->name,
              v->arguments);
  if (cli->args.n > v->most)
    diag_fail(cli->c, E0203, NULL, ctx_printf(cli->c, "usage: dlc %s [options] %s", v->name, v->arguments),
              "one argument too many: %s", diag_quote(cli->c, cli->args.v[v->most]));
}

void cli_parse(Cli *cli, int argc, char **argv) {
  if (argc < 2) diag_fail(cli->c, E0203, NULL, "dlc help", "usage: dlc VERB [options] FILE...");
  cli->verb = parse_verb(cli, argv[1]);
  bool only_arguments = false;
  for (int i = 2; i < argc; i++) {
    const char *word = argv[i];
    if (only_arguments || word[0] != '-' || !word[1]) vec_push(cli->c, &cli->args, word);
    else if (!strcmp(word, "--")) only_arguments = true;
    else if (word[1] == '-') parse_long(cli, argv, &i);
    else parse_short(cli, argv, &i);
  }
  for (int i = 0; i < cli->uses.n; i++) {
    if (cli->uses.v[i].id == OPT_VERBOSE && cli->verbose >= 0) cli->verbose++;
    if (cli->uses.v[i].id == OPT_QUIET) cli->verbose = -1;
  }
  check_arguments(cli);
}

static const OptionUse *last_use(const Cli *cli, OptionId id) {
  for (int i = cli->uses.n; i-- > 0;)
    if (cli->uses.v[i].id == id) return &cli->uses.v[i];
  return NULL;
}

bool cli_has(const Cli *cli, OptionId id) { return last_use(cli, id) != NULL; }

const char *cli_value(const Cli *cli, OptionId id) {
  const OptionUse *use = last_use(cli, id);
  return use ? use->value : NULL;
}

static bool parse_int(const char *text, int64_t *v) {
  char *end;
  errno = 0;
  *v = strtoll(text, &end, 10);
  return end != text && !*end && !errno;
}

int64_t cli_int(const Cli *cli, OptionId id, int64_t min, int64_t max, int64_t dflt) {
  const char *text = cli_value(cli, id);
  int64_t v;
  if (!text) return dflt;
  if (!parse_int(text, &v) || v < min || v > max)
    diag_fail(cli->c, E0202, NULL, NULL, "--%s: %s is not a number from %lld to %lld", option_info[id].name,
              diag_quote(cli->c, text), (long long)min, (long long)max);
  return v;
}

double cli_number(const Cli *cli, OptionId id, double dflt) {
  const char *text = cli_value(cli, id);
  if (!text) return dflt;
  char *end;
  double v = strtod(text, &end);
  if (end == text || *end || !(v >= 0) || isinf(v))
    diag_fail(cli->c, E0202, NULL, NULL, "--%s: %s is not a number >= 0", option_info[id].name,
              diag_quote(cli->c, text));
  return v;
}

double cli_duration(const Cli *cli, OptionId id, double dflt) {
  static const struct { const char *unit; double seconds; } units[] = {{"us", 1e-6}, {"ms", 1e-3}, {"s", 1}, {"min", 60}};
  const char *text = cli_value(cli, id);
  if (!text) return dflt;
  char *end;
  double v = strtod(text, &end), unit = 0;
  for (int i = 0; i < COUNT(units); i++)
    if (!strcmp(end, units[i].unit)) unit = units[i].seconds;
  if (end == text || !unit || !(v >= 0) || !(v * unit <= 86400))
    diag_fail(cli->c, E0202, NULL, NULL, "--%s: %s is not a time of up to a day: 500us, 200ms, 3s, 1min", option_info[id].name,
              diag_quote(cli->c, text));
  return v * unit;
}

int cli_choice(const Cli *cli, OptionId id, const char *const *words, int n) {
  const char *text = cli_value(cli, id);
  if (!text) return 0;
  for (int i = 0; i < n; i++)
    if (!strcmp(text, words[i])) return i;
  const char *near = cli_nearest(text, words, n);
  diag_fail(cli->c, E0202, NULL, near ? ctx_printf(cli->c, "did you mean %s?", near) : NULL, "--%s%s: there is no %s",
            option_info[id].name, option_info[id].argument, diag_quote(cli->c, text));
}

bool cli_pair(const Cli *cli, OptionId id, int i, const char **name, const char **value) {
  for (int u = 0; u < cli->uses.n; u++) {
    if (cli->uses.v[u].id != id || i-- > 0) continue;
    const char *text = cli->uses.v[u].value, *equals = strchr(text, '=');
    if (!equals || equals == text || !equals[1])
      diag_fail(cli->c, E0202, NULL, NULL, "--%s%s: %s", option_info[id].name, option_info[id].argument,
                diag_quote(cli->c, text));
    *name = ctx_intern_n(cli->c, text, (size_t)(equals - text));
    *value = equals + 1;
    return true;
  }
  return false;
}

static DimBound parse_bound(const Cli *cli, const char *name, const char *value) {
  DimBound b = {.name = name};
  const char *dots = strstr(value, "..");
  bool ok = dots ? parse_int(ctx_intern_n(cli->c, value, (size_t)(dots - value)), &b.min) && parse_int(dots + 2, &b.max)
                 : parse_int(value, &b.min);
  if (!dots) b.max = b.min;
  if (!ok || b.min < 0 || b.max < b.min)
    diag_fail(cli->c, E0202, NULL, NULL, "--dim=NAME=N or NAME=LO..HI: %s=%s", diag_quote(cli->c, name),
              diag_quote(cli->c, value));
  return b;
}

void cli_shape_options(const Cli *cli, Options *o) {
  const char *name, *value;
  for (int i = 0; cli_pair(cli, OPT_DIM, i, &name, &value); i++)
    vec_push(cli->c, &o->dims, parse_bound(cli, name, value));
  for (int i = 0; cli_pair(cli, OPT_SHAPE, i, &name, &value); i++)
    vec_push(cli->c, &o->shapes, ((ShapeOption){name, value}));
}

bool cli_is_model(const char *path) {
  char head[4] = "";
  size_t n = strlen(path);
  if (n > 3 && !strcmp(path + n - 3, ".so")) return false;
  FILE *f = fopen(path, "rb");
  bool elf = f && fread(head, 1, sizeof head, f) == sizeof head && !memcmp(head, "\177ELF", sizeof head);
  if (f) fclose(f);
  return !elf;
}

static FILE *open_to_write(const Cli *cli, const char *path) {
  FILE *out = fopen(path, "w");
  if (!out) diag_fail(cli->c, E0502, NULL, NULL, "cannot write %s: %s", diag_quote(cli->c, path), strerror(errno));
  return out;
}

FILE *cli_out(const Cli *cli) {
  const char *path = cli_value(cli, OPT_JSON);
  return path ? open_to_write(cli, path) : stdout;
}

CliFile cli_file(const Cli *cli, OptionId id) {
  if (!cli_has(cli, id)) return (CliFile){NULL, NULL};
  OutFile *f = outfile_new(cli->c, cli_value(cli, id));
  return (CliFile){f, open_to_write(cli, f->temporary)};
}

void cli_file_done(const Cli *cli, CliFile *f) {
  if (!f->to) return;
  cli_out_done(cli, f->to);
  outfile_commit(cli->c, &f->file, 1);
}

void cli_out_done(const Cli *cli, FILE *out) {
  bool bad = fflush(out) != 0 || ferror(out);
  if (out != stdout) bad = fclose(out) != 0 || bad;
  if (bad) diag_fail(cli->c, E0502, NULL, NULL, "cannot write the results: %s", strerror(errno));
}
