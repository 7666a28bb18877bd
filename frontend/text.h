/* text.h - IR texts in the place of models: what --dump-ir, --stop-after and --emit=graph,tir write. */
#ifndef DLC_FRONTEND_TEXT_H
#define DLC_FRONTEND_TEXT_H

#include "../passes/module.h"
#include "onnx/source.h"

bool text_is_ir(const Source *s);                            /* it begins as one */
void text_read(Module *m, const Source *s);                  /* into an empty module; data files lie beneath the text's folder; E0306, E0309 */

#endif
