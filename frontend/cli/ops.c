/* ops.c - dlc ops: the operator table; with --model, the part of a model that it lacks. */
#include "cli.h"
#include "../json.h"
#include "../compile.h"

static const char *const class_name[] = {"elem", "reduce", "expand", "move", "op", "tir", "host", "region"};

static const char *param_text(Ctx *c, const OpParam *p) {
  return ctx_printf(c, "%s%s%s%s", p->name,
                    p->variadic   ? "*"
                    : p->optional ? "?"
                                  : "",
                    p->type ? ":" : "", p->type ? p->type : "");
}

static void json_params(Ctx *c, Json *j, const char *key, const OpParam *p, int n) {
  json_array(j, key);
  for (int i = 0; i < n; i++) json_text(j, NULL, param_text(c, &p[i]));
  json_close(j, ']');
}

static void list_json(Ctx *c, FILE *out) {
  const Op *op;
  Json j = json_begin(out, "ops");
  json_array(&j, "operators");
  for (int i = 0; (op = op_at(c, i)) != NULL; i++) {
    json_object(&j, NULL);
    json_text(&j, "name", op->name);
    json_text(&j, "domain", op->domain);
    json_int(&j, "opset", op->opset);
    json_text(&j, "class", class_name[op->cls]);
    json_params(c, &j, "inputs", op->in, op->nin);
    json_params(c, &j, "outputs", op->out, op->nout);
    json_array(&j, "attributes");
    for (int a = 0; a < op->nattr; a++) json_text(&j, NULL, op->attr[a].name);
    json_close(&j, ']');
    json_close(&j, '}');
  }
  json_close(&j, ']');
  json_end(&j);
}

static void list_text(Ctx *c, FILE *out, bool all) {
  const Op *op;
  int n = 0;
  for (; (op = op_at(c, n)) != NULL; n++) {
    fprintf(out, "%s%s%-24s opset %-3d %-7s", op->domain, *op->domain ? "." : "", op->name, op->opset,
            class_name[op->cls]);
    for (int i = 0; i < op->nin; i++) fprintf(out, " %s", param_text(c, &op->in[i]));
    for (int i = 0; i < op->nattr && all; i++) fprintf(out, "%s%s", i ? " " : "  | ", op->attr[i].name);
    fputc('\n', out);
  }
  if (all) fprintf(out, "%d operators\n", n);
}

/* ---- --model: the importer reports every node that it cannot take; those reports are the result ---- */

static int read_model(Ctx *c, void *user) {
  Options o = {.model = cli_value(user, OPT_MODEL)};
  compile_read(c, &o);
  return 0;
}

static void put_result(const Cli *cli, const Diags *d) {
  FILE *out = cli_out(cli);
  const char *model = cli_value(cli, OPT_MODEL);
  if (cli_has(cli, OPT_JSON)) {
    Json j = json_begin(out, "ops");
    json_text(&j, "model", model);
    json_array(&j, "problems");
    for (int i = 0; d && i < d->list.n; i++) {
      json_object(&j, NULL);
      json_text(&j, "code", diag_code_name(d->list.v[i].code));
      json_text(&j, "text", d->list.v[i].text);
      json_close(&j, '}');
    }
    json_close(&j, ']');
    json_end(&j);
  } else {
    for (int i = 0; d && i < d->list.n; i++) fprintf(out, "%s\n", d->list.v[i].text);
    if (!d && cli->verbose >= 0) fprintf(out, "dlc has every operator of %s\n", diag_quote(cli->c, model));
  }
  cli_out_done(cli, out);
}

/* Only of models that are well formed but not supported is the result a list. */
static bool read_failed(Ctx *c, void *user) {
  if (diag_exit_status(c) != 4) return false;
  put_result(user, ctx_diags(c));
  return true;
}

static int missing(Cli *cli) {
  int status = dlc_guard(read_model, read_failed, cli);
  if (status == 0) put_result(cli, NULL);
  return status;
}

int verb_ops(Cli *cli) {
  if (cli_has(cli, OPT_MODEL)) return missing(cli);
  FILE *out = cli_out(cli);
  if (cli_has(cli, OPT_JSON)) list_json(cli->c, out);
  else list_text(cli->c, out, cli->verbose > 0);
  cli_out_done(cli, out);
  return 0;
}
