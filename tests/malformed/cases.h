/* cases.h - malformed and borderline models, each with what dlc has to say of it. */
#ifndef DLC_TEST_CASES_H
#define DLC_TEST_CASES_H

#include "../../ir/diag.h"
#include "wire.h"

typedef struct Case {
  const char *name;
  Wire (*build)(void);
  DiagCode code;                   /* DIAG_COUNT: the model is right */
  const char *says;                /* stands in the message */
} Case;

extern const Case malformed_cases[];       /* ends with a NULL name */
Wire malformed_valid(void);                /* a small right model that uses most parts of the format */
void malformed_files(const char *folder);  /* what the cases with external data expect beside the model */

#endif
