/* cli.h - the command line: what was asked for, and the verbs. Every table is in options.def. */
#ifndef DLC_CLI_H
#define DLC_CLI_H

#include "../../ir/base.h"
#include "../../ir/diag.h"
#include "../../passes/module.h"

typedef enum {
#define VERB(id, name, arguments, least, most, help) VERB_##id,
#include "options.def"
  VERB_COUNT
} Verb;

typedef enum {
#define OPTION(id, name, shortname, verbs, argument, dflt, help) OPT_##id,
#include "options.def"
  OPT_COUNT
} OptionId;

typedef struct { const char *name, *arguments; int least, most; const char *help; } VerbInfo;
typedef struct { const char *name; char shortname; const char *verbs, *argument, *dflt, *help; } OptionInfo;
extern const VerbInfo verb_info[VERB_COUNT];
extern const OptionInfo option_info[OPT_COUNT];

typedef struct { OptionId id; const char *value; } OptionUse;    /* value NULL where none was given */
typedef struct Cli {
  Ctx *c;
  Verb verb;
  VEC(OptionUse) uses;
  VEC(const char *) args;
  int verbose;                     /* -v count; -1 quiet */
} Cli;

/* ---- options.c: reading the command line; wrong ones are E02xx ---- */
void cli_parse(Cli *cli, int argc, char **argv);
bool option_takes(OptionId id, Verb verb);
const char *cli_nearest(const char *word, const char *const *words, int n);  /* NULL if none is near */

/* ---- questions about it ---- */
bool cli_has(const Cli *cli, OptionId id);
const char *cli_value(const Cli *cli, OptionId id);              /* the last one given; NULL if none */
int64_t cli_int(const Cli *cli, OptionId id, int64_t min, int64_t max, int64_t dflt);
double cli_number(const Cli *cli, OptionId id, double dflt);     /* >= 0 */
double cli_duration(const Cli *cli, OptionId id, double dflt);   /* seconds; "500us", "200ms", "3s" */
int cli_choice(const Cli *cli, OptionId id, const char *const *words, int n);    /* index among words; 0 if not given */
/* NAME=VALUE of use i of id (counted over all uses), false at the end */
bool cli_pair(const Cli *cli, OptionId id, int i, const char **name, const char **value);
void cli_shape_options(const Cli *cli, Options *o);              /* --dim and --shape */
Options cli_compile_options(const Cli *cli);                     /* everything that dlc compile takes, of the model that is the first argument */
bool cli_is_model(const char *path);                             /* else a compiled library: .so or ELF */

/* ---- results: stdout, or the file that --json names ---- */
FILE *cli_out(const Cli *cli);
void cli_out_done(const Cli *cli, FILE *out);                    /* E0502 if not everything could be written */
/* The file that an option names, which appears whole or not at all; `to` is NULL without the option. E0502 at once if there is no way. */
typedef struct { struct OutFile *file; FILE *to; } CliFile;
CliFile cli_file(const Cli *cli, OptionId id);
void cli_file_done(const Cli *cli, CliFile *f);

/* ---- the verbs, a file each; they return the exit status ---- */
int verb_compile(Cli *cli);
int verb_run(Cli *cli);
int verb_compare(Cli *cli);
int verb_bench(Cli *cli);
int verb_profile(Cli *cli);
int verb_inspect(Cli *cli);
int verb_ops(Cli *cli);
int verb_help(Cli *cli);
int verb_version(Cli *cli);
void help_verb(FILE *to, Verb verb);

#endif
