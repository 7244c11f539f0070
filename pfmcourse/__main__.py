"""``python -m pfmcourse``: the command line, also under torchrun; the doctor even when packages are missing."""

import sys

try:
    from pfmcourse.cli import main
except ImportError as error:
    if sys.argv[1:] != ["doctor"]:
        sys.exit(f"error: {error}. See what is missing with: python -m pfmcourse doctor")
    from pfmcourse.course import doctor

    findings = doctor.examine()
    doctor.show(findings)
    sys.exit(0 if doctor.healthy(findings) else 1)

if __name__ == "__main__":
    main()
