/*
 * A float as Python's repr() prints it. C has no way to print the shortest digits that are enough, but to try.
 */
#include "python_float.h"

#include <fenv.h>
#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Digits of any decimal that survive in a double, and digits that are always enough for one (IEEE 754 binary64). */
#define SAFE_DIGITS   15
#define ENOUGH_DIGITS 17

/* repr() writes an exponent from here on (float_repr_style "short", Python's Objects/floatobject.c, format 'r'). */
#define MIN_POINT (-3)
#define MAX_POINT 16

/* Prints so many digits, "d.ddde+xx", rounded by `rounding`; are they enough? */
static bool try_digits(double value, int digits, int rounding, char text[PYTHON_FLOAT_SIZE])
{
    fesetround(rounding);
    snprintf(text, PYTHON_FLOAT_SIZE, "%.*e", digits - 1, value);
    fesetround(FE_TONEAREST);
    return strtod(text, NULL) == value;
}

/*
 * The fewest digits that are enough. Numbers that lie below a power of two are closer together than those above, so the
 * nearest decimal below it may be somebody else's while a farther one above it is still its own.
 */
static void find_digits(double value, char text[PYTHON_FLOAT_SIZE])
{
    int exponent;
    bool is_power = frexp(value, &exponent) == 0.5;
    for (int digits = value < DBL_MIN ? 1 : SAFE_DIGITS; digits < ENOUGH_DIGITS; digits++) {
        if (try_digits(value, digits, FE_TONEAREST, text))
            return;
        if (is_power && try_digits(value, digits, FE_UPWARD, text))
            return;
    }
    try_digits(value, ENOUGH_DIGITS, FE_TONEAREST, text);
}

/* Lays out the digits, `point` of which stand before the decimal point. */
static void lay_out(const char *digits, int count, int point, char *out, size_t size)
{
    if (point < MIN_POINT || point > MAX_POINT)
        snprintf(out, size, "%.1s%s%se%+03d", digits, count > 1 ? "." : "", digits + 1, point - 1);
    else if (point <= 0)
        snprintf(out, size, "0.%.*s%s", -point, "000", digits);
    else if (point < count)
        snprintf(out, size, "%.*s.%s", point, digits, digits + point);
    else
        snprintf(out, size, "%s%.*s.0", digits, point - count, "0000000000000000");
}

void python_float(double value, char text[PYTHON_FLOAT_SIZE])
{
    char found[PYTHON_FLOAT_SIZE], digits[ENOUGH_DIGITS + 1];
    const char *sign = signbit(value) ? "-" : "";
    if (isinf(value)) {
        snprintf(text, PYTHON_FLOAT_SIZE, "%sInfinity", sign);
        return;
    }
    find_digits(fabs(value), found);
    int count = 0;
    for (const char *p = found; *p != 'e'; p++)
        if (*p != '.' && count < ENOUGH_DIGITS)
            digits[count++] = *p;
    while (count > 1 && digits[count - 1] == '0')
        count--;
    digits[count] = 0;
    size_t used = strlen(sign);
    memcpy(text, sign, used + 1);
    lay_out(digits, count, atoi(strchr(found, 'e') + 1) + 1, text + used, PYTHON_FLOAT_SIZE - used);
}
