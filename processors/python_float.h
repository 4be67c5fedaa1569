/* A float as Python's repr() prints it. Private to processors/. */
#pragma once

#define PYTHON_FLOAT_SIZE 64

/* Writes repr(value): the shortest digits that read back as the same number. Infinities as json.dumps prints them. */
void python_float(double value, char text[PYTHON_FLOAT_SIZE]);
