/* help.c - dlc help [VERB|CODE]: everything it says is read from options.def and diag.def. */
#include "cli.h"

static const int exit_of_code[] = {
#define DIAG(code, exit_status, title) exit_status,
#include "../../ir/diag.def"
#undef DIAG
};

static const char *const exit_meaning[] = {"ok",
                                           "the answer is no (compare: outputs differ; bench: from run to run)",
                                           "the command line is wrong",
                                           "the model is malformed",
                                           "the model is valid but not supported",
                                           "a file cannot be read or written",
                                           "a limit is reached (memory, time, size)",
                                           "a part needed for this is missing",
                                           "internal error"};

static void help_all(FILE *to) {
  fprintf(to, "dlc %s compiles ONNX models to native libraries.\n\nusage: dlc VERB [options] FILE...\n\n", DLC_VERSION);
  for (int v = 0; v < VERB_COUNT; v++) fprintf(to, "  %-9s %s\n", verb_info[v].name, verb_info[v].help);
  fprintf(to, "\nexit status:\n");
  for (int i = 0; i < COUNT(exit_meaning); i++) fprintf(to, "  %d  %s\n", i, exit_meaning[i]);
  fprintf(to, "\n`dlc help VERB` lists the options of a verb, `dlc help E0411` explains an error.\n");
}

/* "-o, --output=FILE" */
static void option_spelling(char *out, size_t size, OptionId id) {
  const OptionInfo *o = &option_info[id];
  char brief[8] = "    ";
  if (o->shortname) snprintf(brief, sizeof brief, "-%c, ", o->shortname);
  snprintf(out, size, "%s--%s%s", brief, o->name, o->argument);
}

void help_verb(FILE *to, Verb verb) {
  const VerbInfo *v = &verb_info[verb];
  fprintf(to, "usage: dlc %s [options] %s\n\n%s\n\noptions:\n", v->name, v->arguments, v->help);
  for (int i = 0; i < OPT_COUNT; i++) {
    if (!option_takes((OptionId)i, verb)) continue;
    char spelling[80];
    option_spelling(spelling, sizeof spelling, (OptionId)i);
    fprintf(to, "  %s\n        %s", spelling, option_info[i].help);
    if (*option_info[i].dflt) fprintf(to, " (default: %s)", option_info[i].dflt);
    fputc('\n', to);
  }
}

static bool help_code(FILE *to, const char *name) {
  for (int i = 0; i < DIAG_COUNT; i++) {
    if (strcmp(name, diag_code_name((DiagCode)i)) != 0) continue;
    fprintf(to, "%s: %s\nexit status %d: %s\n", name, diag_code_title((DiagCode)i), exit_of_code[i],
            exit_meaning[exit_of_code[i]]);
    return true;
  }
  return false;
}

/* Table cells may not hold a bare '|'. */
static void put_cell(FILE *to, const char *text) {
  for (; *text; text++) {
    if (*text == '|') fputc('\\', to);
    fputc(*text, to);
  }
}

static void help_markdown(FILE *to) {
  fprintf(to, "| verb | does |\n| --- | --- |\n");
  for (int v = 0; v < VERB_COUNT; v++) {
    fprintf(to, "| `dlc %s%s", verb_info[v].name, *verb_info[v].arguments ? " " : "");
    put_cell(to, verb_info[v].arguments);
    fprintf(to, "` | %s |\n", verb_info[v].help);
  }
  fprintf(to, "\n| option | verbs | default | does |\n| --- | --- | --- | --- |\n");
  for (int i = 0; i < OPT_COUNT; i++) {
    char spelling[80];
    option_spelling(spelling, sizeof spelling, (OptionId)i);
    fprintf(to, "| `");
    put_cell(to, spelling + strspn(spelling, " "));
    fprintf(to, "` | %s | %s | ", option_info[i].verbs, option_info[i].dflt);
    put_cell(to, option_info[i].help);
    fprintf(to, " |\n");
  }
}

int verb_help(Cli *cli) {
  FILE *to = stdout;
  if (cli_has(cli, OPT_MARKDOWN)) help_markdown(to);
  else if (cli->args.n == 0) help_all(to);
  else {
    const char *topic = cli->args.v[0], *names[VERB_COUNT];
    for (int v = 0; v < VERB_COUNT; v++) {
      names[v] = verb_info[v].name;
      if (!strcmp(names[v], topic)) {
        help_verb(to, (Verb)v);
        return 0;
      }
    }
    if (help_code(to, topic)) return 0;
    const char *near = cli_nearest(topic, names, VERB_COUNT);
    diag_fail(cli->c, E0203, NULL, near ? ctx_printf(cli->c, "did you mean dlc help %s?", near) : "dlc help",
              "there is no help on %s", diag_quote(cli->c, topic));
  }
  return 0;
}
