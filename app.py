"""python app.py: open the page."""

from app.serve import main

if __name__ == "__main__":
    main()
