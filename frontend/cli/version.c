/* version.c - dlc version */
#include "cli.h"
#include "../json.h"

int verb_version(Cli *cli) {
  FILE *out = cli_out(cli);
  if (cli_has(cli, OPT_JSON)) {
    Json j = json_begin(out, "version");
    json_end(&j);
  } else {
    fprintf(out, "dlc %s\n", DLC_VERSION);
  }
  cli_out_done(cli, out);
  return 0;
}
