/* main.c - the program: reads the command line, runs the verb; errors of either unwind to dlc_guard. */
#include "cli.h"
#include "../compile.h"
#include <stdlib.h>

static int (*const verbs[VERB_COUNT])(Cli *) = {verb_compile, verb_run, verb_compare, verb_bench, verb_profile,
                                                verb_inspect, verb_ops, verb_help,    verb_version};

typedef struct {
  int argc;
  char **argv;
} Words;

static int command(Ctx *c, void *user) {
  const Words *words = user;
  Cli cli = {.c = c};
  cli_parse(&cli, words->argc, words->argv);
  if (!cli_has(&cli, OPT_HELP)) return verbs[cli.verb](&cli);
  help_verb(stdout, cli.verb);
  return 0;
}

int main(int argc, char **argv) {
  Words words = {argc, argv};
  int status = dlc_guard(command, NULL, &words);
  if (fflush(stdout) == 0 || status != 0) return status;
  fprintf(stderr, "dlc: error[E0502]: cannot write to the standard output\n");
  return 5;
}
