readMarks();
readAddress();
tellOpen();
if (data.live) { countLive(); loadPart(); }
