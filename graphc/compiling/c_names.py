"""c_names: names in C, and in C++, for names of the user's.

A header is included after any other, so what C's headers and compilers define as macros is no name in it. A function of
the C library's name would take that one's place wherever the object is linked.
"""

from __future__ import annotations

import errno
import re
import signal

__all__ = ["identifier", "is_function"]

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_RESERVED = re.compile(
    r"_[A-Z_]|u?int\d+_t$"
    r"|(U?INT(\d+|_LEAST\d+|_FAST\d+|PTR|MAX)|PTRDIFF|SIG_ATOMIC|SIZE|WCHAR|WINT)_(MIN|MAX|WIDTH)$"  # of stdint.h
    r"|(S?CHAR|U?CHAR|U?SHRT|U?INT|U?LONG|U?LLONG|MB_LEN)_(MIN|MAX|BIT|WIDTH)$"  # of limits.h
    r"|(FLT|DBL|LDBL|DECIMAL|FP|FE|SIG|LC|SEEK|EXIT|TMP|ATOMIC|HUGE)_"
    r"|(PRI|SCN)[diouxX](\d|LEAST|FAST|MAX|PTR)"  # of inttypes.h
    r"|M_(E|LOG2E|LOG10E|LN2|LN10|PI|PI_2|PI_4|1_PI|2_PI|2_SQRTPI|SQRT2|SQRT1_2)$"  # of math.h
)
_KEYWORDS = frozenset(  # of C, to C23, and of C++, to C++23: the header serves both
    {"auto", "break", "case", "char", "const", "continue", "default", "do", "double", "else", "enum", "extern"}
    | {"float", "for", "goto", "if", "inline", "int", "long", "register", "restrict", "return", "short", "signed"}
    | {"sizeof", "static", "struct", "switch", "typedef", "union", "unsigned", "void", "volatile", "while"}
    | {"alignas", "alignof", "bool", "constexpr", "false", "nullptr", "static_assert", "thread_local", "true", "typeof"}
    | {"and", "asm", "bitand", "bitor", "catch", "class", "compl", "concept", "consteval", "constinit", "decltype"}
    | {"delete", "explicit", "export", "friend", "mutable", "namespace", "new", "noexcept", "not", "operator", "or"}
    | {"private", "protected", "public", "requires", "template", "this", "throw", "try", "typeid", "typename", "using"}
    | {"virtual", "wchar_t", "xor", "and_eq", "not_eq", "or_eq", "xor_eq", "char8_t", "char16_t", "char32_t"}
    | {"co_await", "co_return", "co_yield", "const_cast", "dynamic_cast", "reinterpret_cast", "static_cast"}
    | {"typeof_unqual"}
)
_MACROS = frozenset(
    {"NULL", "EOF", "WEOF", "MB_CUR_MAX", "ONCE_FLAG_INIT", "BUFSIZ", "RAND_MAX", "CLOCKS_PER_SEC", "TIME_UTC"}
    | {"FILENAME_MAX", "FOPEN_MAX", "L_tmpnam", "errno", "stdin", "stdout", "stderr", "assert", "INFINITY", "NAN"}
    | {"MATH_ERRNO", "I", "complex", "imaginary", "noreturn", "unreachable", "math_errhandling", "NDEBUG"}
    | {name for of in (errno, signal) for name in dir(of) if re.fullmatch("(E|SIG)[A-Z0-9]+", name)}
    | {"linux", "unix", "i386", "mips", "sparc", "sun", "AVR", "vax", "arm"}  # of compilers, unless they are strict
)
_OF_NUMBERS = (  # functions of C, and of compilers that are not strict; each also with f and l at its end
    "acos acosh asin asinh atan atan2 atanh cbrt ceil copysign cos cosh erf erfc exp exp2 expm1 fabs fdim floor fma "
    "fmax fmin fmod frexp hypot ilogb ldexp lgamma llrint llround log log10 log1p log2 logb lrint lround modf nan "
    "nearbyint nextafter nexttoward pow remainder remquo rint round scalbln scalbn sin sinh sqrt tan tanh tgamma "
    "trunc cabs cacos cacosh carg casin casinh catan catanh ccos ccosh cexp cimag clog conj cpow cproj creal csin "
    "csinh csqrt ctan ctanh drem exp10 finite gamma isinf isnan j0 j1 jn pow10 scalb significand sincos y0 y1 yn"
)
_OTHERS = (  # of C, and of systems
    "abort abs atexit atof atoi atol atoll bsearch calloc div exit free getenv labs ldiv llabs lldiv malloc mblen "
    "mbstowcs mbtowc qsort quick_exit rand realloc aligned_alloc srand strtod strtof strtol strtold strtoll strtoul "
    "strtoull system wcstombs wctomb memchr memcmp memcpy memmove memset strcat strchr strcmp strcoll strcpy strcspn "
    "strerror strlen strncat strncmp strncpy strpbrk strrchr strspn strstr strtok strxfrm clearerr fclose feof ferror "
    "fflush fgetc fgetpos fgets fopen fprintf fputc fputs fread freopen fscanf fseek fsetpos ftell fwrite getc "
    "getchar gets perror printf putc putchar puts remove rename rewind scanf setbuf setvbuf snprintf sprintf sscanf "
    "tmpfile tmpnam ungetc vfprintf vprintf vsnprintf vsprintf isalnum isalpha isblank iscntrl isdigit isgraph "
    "islower isprint ispunct isspace isupper isxdigit tolower toupper asctime clock ctime difftime gmtime localtime "
    "mktime strftime time signal raise setjmp longjmp setlocale localeconv accept access alarm alloca bcmp bcopy bind "
    "bzero chdir clone close connect creat daemon dup err error exec ffs fork glob index ioctl kill link listen lseek "
    "mmap mkdir mount nice open pause pipe poll random read recv rindex select send sleep socket splice stat stpcpy "
    "strdup strndup sync tee times truncate unlink wait warn write"
)
_FUNCTIONS = {f"{name}{end}" for name in _OF_NUMBERS.split() for end in ("", "f", "l")} | set(_OTHERS.split())


def is_function(name: str) -> bool:
    """Whether a function of the user's can have this name."""
    return _is_free(name) and name not in _FUNCTIONS and name != "main"


def identifier(name: str, taken: set[str]) -> str:
    """A field's name for a name of the user's. It is not taken, and is from now on."""
    plain = re.sub(r"[^A-Za-z0-9_]", "_", name)
    first = "x" if plain.startswith("_") else "x_" if plain[0].isupper() else "_"
    wanted = plain if _is_free(plain) else first + plain
    while wanted in taken:
        wanted += "_"
    taken.add(wanted)
    return wanted


def _is_free(name: str) -> bool:
    """Whether C leaves a name to its users: some that begin with underscores are its own, and types and macros."""
    return bool(_IDENTIFIER.fullmatch(name)) and name not in _KEYWORDS | _MACROS and not _RESERVED.match(name)
