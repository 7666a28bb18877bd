/* interp.c - runs a model on the reference interpreter. */
#include "runner.h"
#include "../compile.h"
#include "../../ir/diag.h"
#include "../../ir/interp.h"

typedef struct {
  Graph *graph;
  Interp *interp;
} State;

static Port *read_ports(Ctx *c, Tensor *const *tensors, int n) {
  Port *ports = NEW_ARRAY(c, Port, n);
  for (int i = 0; i < n; i++) {
    const Tensor *t = tensors[i];
    ports[i] = (Port){.name = t->name, .dtype = t->dtype, .rank = t->rank};
    for (int d = 0; d < t->rank; d++)
      if (!ex_is_int(t->shape[d], &ports[i].dims[d])) {
        ports[i].dims[d] = -1;
        ports[i].dim_names[d] = t->shape[d]->op == EX_SYM ? t->shape[d]->u.sym->name : NULL;
      }
  }
  return ports;
}

static void interp_run(Runner *r, const Array *in, Array *out) {
  State *s = r->state;
  Value *inputs = NEW_ARRAY(r->c, Value, r->ninputs), *outputs = NEW_ARRAY(r->c, Value, r->noutputs);
  for (int i = 0; i < r->ninputs; i++) {
    inputs[i] = (Value){.dtype = in[i].dtype, .rank = in[i].rank, .data = in[i].data};
    memcpy(inputs[i].dims, in[i].dims, sizeof in[i].dims);
  }
  interp_graph(s->interp, s->graph, inputs, outputs);
  for (int i = 0; i < r->noutputs; i++) {
    const Value *v = &outputs[i];
    out[i] = (Array){.dtype = v->dtype, .rank = v->rank};
    memcpy(out[i].dims, v->dims, sizeof v->dims);
    array_allocate(r->c, &out[i]);
    size_t step = (size_t)dtype_bytes(v->dtype);
    for (int64_t k = 0; v->splat && k < array_count(&out[i]); k++)
      memcpy((char *)out[i].data + (size_t)k * step, v->data, step);
    if (!v->splat && array_bytes(&out[i])) memcpy(out[i].data, v->data, array_bytes(&out[i]));
  }
}

static void free_interp(void *interp) { interp_free(interp); }

Runner *runner_interp(Ctx *c, const char *model, const Options *shapes) {
  Options *o = ctx_copy(c, shapes, sizeof *shapes);
  o->model = model;
  State *s = NEW(c, State);
  s->graph = compile_simplified(c, o);
  s->interp = interp_new(c);
  ctx_defer(c, free_interp, s->interp);
  Runner *r = NEW(c, Runner);
  *r = (Runner){.c = c, .path = model, .what = "interpreter", .run = interp_run, .state = s};
  r->ninputs = s->graph->inputs.n;
  r->noutputs = s->graph->outputs.n;
  r->inputs = read_ports(c, s->graph->inputs.v, r->ninputs);
  r->outputs = read_ports(c, s->graph->outputs.v, r->noutputs);
  return r;
}
