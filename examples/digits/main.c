/* main.c - classifies handwritten digits with the compiled network: make run. */
#include <stdio.h>
#include <stdlib.h>
#include "digits.h"

static _Alignas(DIGITS_ALIGN) char workspace[DIGITS_WORKSPACE_BYTES + 1];

static int classify(const unsigned char *image, float *score) {
  float pixels[64], scores[10];
  int best = 0;
  for (int i = 0; i < 64; i++) pixels[i] = (float)image[i] / 16;
  if (digits_run(pixels, scores, workspace) != 0) exit(1);
  for (int i = 1; i < 10; i++)
    if (scores[i] > scores[best]) best = i;
  *score = scores[best];
  return best;
}

/* `count` digits side by side, two characters a pixel, what the network says below. */
static void show(unsigned char digits[][65], int count) {
  static const char *const shade[] = {"  ", "░░", "▒▒", "▓▓", "██"};
  for (int row = 0; row < 8; row++, putchar('\n'))
    for (int d = 0; d < count; d++, fputs("     ", stdout))
      for (int column = 0; column < 8; column++) fputs(shade[(digits[d][1 + row * 8 + column] + 3) / 4], stdout);
  for (int d = 0; d < count; d++) {
    float score;
    int guess = classify(digits[d] + 1, &score);
    printf("it is a %d (%3.0f %%)%c   ", guess, 100 * score, guess == digits[d][0] ? ' ' : '!');
  }
  puts("\n");
}

int main(int argc, char **argv) {
  static unsigned char digits[2000][65];       /* the label, 8x8 pixels of 0 to 16 */
  FILE *file = fopen(argc > 1 ? argv[1] : "heldout.bin", "rb");
  int n = file ? (int)fread(digits, 65, 2000, file) : 0, right = 0;
  if (n == 0) { fputs("no digits in heldout.bin\n", stderr); return 1; }
  for (int i = 0; i + 4 <= 12 && i + 4 <= n; i += 4) show(digits + i, 4);
  for (int i = 0; i < n; i++) {
    float score;
    right += classify(digits[i] + 1, &score) == digits[i][0];
  }
  printf("%d of %d held-out digits right: %.1f %%\n", right, n, 100.0 * right / n);
  return 0;
}
