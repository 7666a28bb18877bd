/* compile.c - dlc compile: options to an Options, and the summary afterwards. */
#include "../compile.h"
#include "cli.h"
#include "../json.h"
#include "progress.h"
#include "term.h"

/* The model's file name with another suffix, in the current folder. */
static const char *default_output(const Cli *cli, const char *model, const char *emit) {
  const char *slash = strrchr(model, '/'), *base = slash ? slash + 1 : model, *dot = strrchr(base, '.');
  const char *suffix = compile_suffix(emit, strcspn(emit, ","));
  int stem = dot && dot != base ? (int)(dot - base) : (int)strlen(base);
  return ctx_printf(cli->c, "%.*s%s", stem, base, suffix ? suffix : ".so");
}

Options cli_compile_options(const Cli *cli) {
  static const char *const fp32[] = {"fast", "strict"};
  Options o = {.model = cli->args.v[0], .emit = "so", .verbose = cli->verbose};
  if (cli_has(cli, OPT_EMIT)) o.emit = cli_value(cli, OPT_EMIT);
  o.stop_after = cli_value(cli, OPT_STOP_AFTER);
  o.output = cli_value(cli, OPT_OUTPUT);
  if (!o.output && !o.stop_after) o.output = default_output(cli, o.model, o.emit);
  o.name = cli_value(cli, OPT_NAME);
  o.cpu = cli_value(cli, OPT_CPU);
  o.threads = (int)cli_int(cli, OPT_THREADS, 0, 1024, 0);
  o.jobs = (int)cli_int(cli, OPT_JOBS, 0, 1024, 0);
  cli_shape_options(cli, &o);
  o.fp32_strict = cli_choice(cli, OPT_FP32, fp32, COUNT(fp32)) == 1;
  if (cli_has(cli, OPT_DUMP_IR)) o.dump_ir = cli_value(cli, OPT_DUMP_IR) ? cli_value(cli, OPT_DUMP_IR) : "-";
  o.dump_passes = cli_value(cli, OPT_DUMP_PASSES);
  o.explain = cli_has(cli, OPT_EXPLAIN);
  o.time_passes = cli_has(cli, OPT_TIME_PASSES);
  return o;
}

static void print_summary(const Cli *cli, FILE *out, const CompileReport *r) {
  Ctx *c = cli->c;
  bool color = term_color(cli, out);
  if (r->nodes_before)
    fprintf(out, "%d -> %d nodes, %d folded, %d fused, %d kernels\n", r->nodes_before, r->nodes_after, r->folded,
            r->fused, r->kernels);
  if (*r->output)
    fprintf(out, "%s%s%s  %s  (code %s, weights %s)  %s, cpu %s\n", term_on(color, TERM_BOLD), diag_quote(c, r->output),
            term_off(color), text_bytes(c, r->file_bytes), text_bytes(c, r->code_bytes), text_bytes(c, r->weight_bytes),
            r->triple, r->cpu);
  if (*r->header) {
    const char *workspace = r->workspace_bytes < 0 ? "by the sizes at run time" : text_bytes(c, r->workspace_bytes);
    fprintf(out, "%s%s%s  entry %s_run(), inputs %s, outputs %s; workspace %s\n", term_on(color, TERM_BOLD),
            diag_quote(c, r->header), term_off(color), r->name, diag_quote(c, r->inputs), diag_quote(c, r->outputs),
            workspace);
  }
  if (*r->header)
    fprintf(out, "next: dlc bench %s    dlc compare %s --ref ort %s\n", diag_quote(c, r->output), diag_quote(c, r->output),
            diag_quote(c, cli->args.v[0]));
}

static void print_json(FILE *out, const CompileReport *r) {
  Json j = json_begin(out, "compile");
  json_text(&j, "output", r->output);
  json_text(&j, "header", r->header);
  json_text(&j, "name", r->name);
  json_text(&j, "triple", r->triple);
  json_text(&j, "cpu", r->cpu);
  json_text(&j, "inputs", r->inputs);
  json_text(&j, "outputs", r->outputs);
  json_object(&j, "bytes");
  json_int(&j, "model", r->model_bytes);
  json_int(&j, "file", r->file_bytes);
  json_int(&j, "code", r->code_bytes);
  json_int(&j, "weights", r->weight_bytes);
  json_int(&j, "workspace", r->workspace_bytes);
  json_close(&j, '}');
  json_int(&j, "parameters", r->params);
  json_int(&j, "nodes_before", r->nodes_before);
  json_int(&j, "nodes_after", r->nodes_after);
  json_int(&j, "folded", r->folded);
  json_int(&j, "fused", r->fused);
  json_int(&j, "kernels", r->kernels);
  json_object(&j, "seconds");
  for (int i = 0; i < r->nstages; i++) json_number(&j, r->stage[i].name, r->stage[i].seconds);
  json_close(&j, '}');
  json_end(&j);
}

int verb_compile(Cli *cli) {
  Options o = cli_compile_options(cli);
  Progress progress = progress_new(cli);
  CompileReport report = {.nodes_before = 0};
  o.progress = progress_report;
  o.progress_user = &progress;
  int status = dlc_compile(&o, &report);
  if (status != 0) return status;
  progress_done(&progress);
  if (!cli_has(cli, OPT_JSON) && (cli->verbose < 0 || o.stop_after)) return 0;
  FILE *out = cli_out(cli);
  if (cli_has(cli, OPT_JSON)) print_json(out, &report);
  else print_summary(cli, out, &report);
  cli_out_done(cli, out);
  return 0;
}
